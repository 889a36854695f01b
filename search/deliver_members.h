/* deliver_members.h - nas-search --deliver: networks of a finished front besides the best one, each in a folder of its own. */
#ifndef NAS_SEARCH_DELIVER_MEMBERS_H
#define NAS_SEARCH_DELIVER_MEMBERS_H

#include "core/core.h"

/* The front that was fine-tuned and timed again, by trial, and what writes one of it to <dir>/<folder>. */
typedef struct nas__members {
    void *study;
    const char *dir;
    size_t n_trials;
    bool (*is_member)(const void *study, size_t trial);
    nas_status (*write)(void *study, size_t trial, const char *folder);
} nas__members;

/* nas__deliver_syntax - whether a text is "front" or numbers with commas between. */
bool nas__deliver_syntax(const char *wanted);

/* nas__deliver_members - writes those that are wanted to <dir>/trial-<number>, and says so on stderr. wanted: as above; NULL: none.
 * INVALID: a number that is no member; the message lists the members, nothing was written. */
nas_status nas__deliver_members(nas_ctx *ctx, const char *wanted, const nas__members *members);

#endif
