/* latency_study.h - what searches left in a database as rows to fit: networks of the space "sr" that a study timed, and
 * the layers that nas-search --profile timed alone. Shared inside tools/.
 *
 * A network of a study is an architecture of space "network", written "<height>x<width> <text of its point>" with the
 * extents of its input: "360x640 sr x2 f16 h3 t3 s5 | 1:48,12 2:-". */
#ifndef NAS_TOOLS_LATENCY_STUDY_H
#define NAS_TOOLS_LATENCY_STUDY_H

#include "db/db.h"
#include "ir/graph.h"

typedef struct nas_study_rows {
    size_t networks, layers; /* rows of the series "network" and "kernel" now */
    size_t others; /* measurements of that name on another machine, target or number of threads */
} nas_study_rows;

/* nas_latency_take_studies - brings the series of a device up to date with the studies of the database; `device` is a
 * device of a study, or its pool. Of several measurements of one network the fastest calm one is taken. A device whose
 * machine changed counts as it was last. All zero when no study timed anything on it. */
nas_status nas_latency_take_studies(nas_ctx *ctx, nas_db *db, const char *device,
                                    nas_study_rows *out);

/* nas_latency_is_study_arch - is this text written as above? */
bool nas_latency_is_study_arch(const char *arch);
/* nas_latency_study_graph - its network. PARSE, RANGE, INVALID. */
nas_status nas_latency_study_graph(nas_ctx *ctx, const char *arch, nas_graph **out);

#endif
