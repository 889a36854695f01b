/* data_internal.h - what the data set's files share: the list of pictures found in folders. Stays in eval/. */
#ifndef NAS_EVAL_DATA_INTERNAL_H
#define NAS_EVAL_DATA_INTERNAL_H

#include "eval/data.h"

enum { NAS__HR_CUTS_MAX = 8 };

/* One picture: where its HR is (several cuts of one picture when a folder keeps one for each scale) and its LR. */
typedef struct nas__sr_source {
    char *hr[NAS__HR_CUTS_MAX];
    size_t n_hr; /* >= 1 */
    char *lr;    /* NULL: LR is made from HR */
} nas__sr_source;

typedef struct nas__sr_sources {
    nas__sr_source *items;
    size_t n, cap;
    size_t skipped; /* folders that could not be read, logged by name */
} nas__sr_sources;

/* nas__sr_scan - appends the pictures below each of `folders` (joined by ':'), sorted by path within this call.
 * Errors: NOTFOUND (a folder does not exist), NOMEM, CANCELLED. What was appended before an error stays; deinit. */
nas_status nas__sr_scan(nas_ctx *ctx, const char *folders, int32_t scale, nas__sr_sources *out);
void nas__sr_sources_deinit(nas__sr_sources *sources);

/* nas__sr_pair_load - reads one picture: HR cropped to multiples of scale, LR stored or made. On failure the message
 * names the file. */
nas_status nas__sr_pair_load(nas_ctx *ctx, const nas__sr_source *source, int32_t scale,
                             nas_sr_pair *out);
/* nas__sr_pair_make - crops take_hr to multiples of scale and makes its LR by bicubic, rounded to 8 bit. */
nas_status nas__sr_pair_make(nas_ctx *ctx, nas_image *take_hr, int32_t scale, nas_sr_pair *out);
void nas__sr_pair_deinit(nas_sr_pair *pair);

int32_t nas__sr_data_scale(const nas_sr_data *data);

#endif
