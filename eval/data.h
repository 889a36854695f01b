/* data.h - super-resolution data: a folder of images or built-in dead leaves, in three disjoint splits, and patches.
 * Part of eval/eval.h. */
#ifndef NAS_EVAL_DATA_H
#define NAS_EVAL_DATA_H

#include "eval/image.h"

/* Splits: TRAIN feeds the trainer, SELECT scores trials during the search, REPORT is looked at once, for the tables. */
typedef enum nas_split {
    NAS_SPLIT_TRAIN,
    NAS_SPLIT_SELECT,
    NAS_SPLIT_REPORT,
    NAS_SPLIT_COUNT
} nas_split;

typedef struct nas_sr_data_options {
    int32_t scale; /* 2, 3, 4 */
    uint64_t seed;
    /* Folders, NULL or "" = none. Searched recursively in byte order of path; several folders joined by ':'. Names
     * that begin with a dot are passed over; every other regular file is tried.
     * Where a folder holds HR/ and LR_x<scale>/, the stored LR images are used: the HR of 001.png is 001.png or
     * 001_<anything>.png, of several (one cut for each scale) the one whose extents are scale times the LR's. When
     * names do not pair and the counts are equal, both are paired in sorted order. Otherwise, and for every other
     * image, LR is our bicubic of HR, rounded to 8 bit. Of several sizes of one picture in HR/ the largest is taken.
     * train_dir without select_dir: select_fraction of the images, chosen by a seeded hash of the content, are held
     * out; likewise report. The same picture (content hash) never lands in two splits: it stays in REPORT, else in
     * SELECT. A select_dir or report_dir with more than select_max (report_max) images gives a seeded choice. */
    const char *train_dir, *select_dir, *report_dir;
    double select_fraction; /* (0,0.5]; used when select_dir is absent */
    int32_t select_max;     /* at most this many images in SELECT, >= 1 */
    int32_t report_max;
    /* Built-in generator, used for every split that has no folder when train_dir is absent. */
    int32_t leaves_train, leaves_select, leaves_report; /* images */
    int32_t leaves_height, leaves_width;                /* HR pixels */
    int32_t threads;
    /* Of all pixels held, in bytes; more is a RANGE error. Default: half of the physical memory. */
    uint64_t memory_max_bytes;
} nas_sr_data_options;

/* x2, seed 1, no folders, 10 %, at most 8 SELECT and 8 REPORT images; 160 + 8 + 8 leaves of 192x192; all CPUs. */
nas_sr_data_options nas_sr_data_options_default(void);

typedef struct nas_sr_pair {
    char name[96];
    nas_image hr; /* RGB, extents multiples of scale */
    nas_image lr; /* RGB, 8-bit values */
} nas_sr_pair;

typedef struct nas_sr_data nas_sr_data;

/* nas_sr_data_open - reads or generates everything. Unreadable files and images whose shorter side is below
 * 12 + 2 * scale pixels (too small to score) are logged by name, skipped and counted. The result does not depend on
 * the number of threads. Polls cancel. Errors: INVALID (an option), NOTFOUND (no such folder, or nothing usable is left
 * in a split), RANGE (memory), NOMEM, CANCELLED. */
nas_status nas_sr_data_open(nas_ctx *ctx, const nas_sr_data_options *options, nas_sr_data **out);
void nas_sr_data_close(nas_sr_data *data);
size_t nas_sr_data_count(const nas_sr_data *data, nas_split split);
/* nas_sr_data_pair - borrowed until close; NULL when index is not below the count. */
const nas_sr_pair *nas_sr_data_pair(const nas_sr_data *data, nas_split split, size_t index);
size_t nas_sr_data_skipped(const nas_sr_data *data);
/* nas_sr_data_describe - one line for people: "91 images from ... (3 skipped), select 8, report 5 (Set5)". */
const char *nas_sr_data_describe(const nas_sr_data *data);
/* nas_sr_data_hash - SHA-256 over all pixels and the split: the same data, the same hash. */
const char *nas_sr_data_hash(const nas_sr_data *data);

/* nas_sr_data_patches - `count` random TRAIN patches with flips and transposition:
 * lr [count][3][size][size], hr [count][3][size*scale][size*scale], floats in [0,1]. An image is picked with
 * probability proportional to its area. RANGE when no image holds a patch of that size. */
nas_status nas_sr_data_patches(nas_ctx *ctx, const nas_sr_data *data, nas_rng *rng, int32_t count,
                               int32_t size, float *lr, float *hr);

/* nas_dead_leaves - one synthetic image: opaque shapes with radii density ~ r^-3, occlusion, natural colour
 * statistics, gradients and textures, slight blur and noise (Lee, Mumford & Huang 2001; Baradad et al.,
 * arXiv:2106.05963). Same (seed, index, extents), same pixels. */
nas_status nas_dead_leaves(nas_ctx *ctx, uint64_t seed, uint64_t index, int32_t h, int32_t w,
                           nas_image *out);

/* nas_upscale_fn - fills sr_out from lr. sr_out comes in initialised by the caller (RGB, the HR extents, zeroed), who
 * also frees it; the function writes the pixels and replaces neither data nor extents. Values are clamped and rounded
 * to 8 bit by the caller. */
typedef nas_status (*nas_upscale_fn)(nas_ctx *ctx, void *arg, const nas_image *lr,
                                     nas_image *sr_out);
typedef struct nas_sr_score {
    double psnr_y_db; /* mean over images */
    double ssim_y;
    size_t images;
} nas_sr_score;
/* nas_sr_score_split - mean PSNR-Y and SSIM-Y over the images of a split that `upscale` makes from the LR images, one
 * after the other in the caller's thread; border = scale. Polls cancel.
 * Errors: INVALID (scale is not the data's), SHAPE (extents or data replaced), what `upscale` returns. */
nas_status nas_sr_score_split(nas_ctx *ctx, const nas_sr_data *data, nas_split split, int32_t scale,
                              nas_upscale_fn upscale, void *arg, nas_sr_score *out);
/* nas_upscale_bicubic - the baseline as an nas_upscale_fn: lr to the extents of sr_out; arg unused. */
nas_status nas_upscale_bicubic(nas_ctx *ctx, void *arg, const nas_image *lr, nas_image *sr_out);

#endif
