/* class_data.h - labelled images for classifiers, in three disjoint splits. Part of eval/eval.h.
 *
 * TUNE teaches (fine-tuning, statistics of layers), REWARD scores candidates during a search, REPORT is looked at once, for
 * the tables. Which image lands where is decided by a seeded hash of its pixels; equal images are kept once, so that no
 * picture is in two splits. */
#ifndef NAS_EVAL_CLASS_DATA_H
#define NAS_EVAL_CLASS_DATA_H

#include "core/core.h"

typedef enum nas_class_split {
    NAS_CLASS_TUNE,
    NAS_CLASS_REWARD,
    NAS_CLASS_REPORT,
    NAS_CLASS_SPLIT_COUNT
} nas_class_split;

enum { NAS_CLASS_CHANNELS_MAX = 4, NAS_CLASS_LABELS_MAX = 65536 };

typedef struct nas_class_data_options {
    /* "glyphs"  built-in rendered digits, no path
     * "cifar10" binary batches: a file, or a folder whose *.bin files are read in byte order of name; records of one label
     *           byte and h*w*c bytes of planes
     * "idx"     "images:labels", pairs joined by ':'; MNIST's format, plain or gzip; one channel
     * "folder"  one folder a class, in byte order of name, with PNG or JPEG files; resized to h x w
     * "raw"     "images:labels": little-endian floats [n][c][h][w] as the network reads them (mean and deviation are not
     *           applied), and one byte or one int32 a label */
    const char *kind;
    const char *path;
    const char *report_path;                  /* REPORT comes from here; "" or NULL: from `path` */
    int32_t h, w, c;                          /* of the network's input */
    int32_t reward_max, report_max, tune_max; /* images, >= 1; TUNE gets what the others leave */
    int32_t glyphs;                           /* images to render, for "glyphs" */
    float mean[NAS_CLASS_CHANNELS_MAX],
        deviation[NAS_CLASS_CHANNELS_MAX]; /* (x/255 - mean)/deviation */
    uint64_t seed;
} nas_class_data_options;

/* glyphs 32x32x3, 1000 reward and report images, 8000 glyphs, mean 0.5, deviation 0.25, seed 1 */
nas_class_data_options nas_class_data_options_default(void);

typedef struct nas_class_data nas_class_data;

/* nas_class_data_open - errors: INVALID (an option), NOTFOUND, PARSE (wrong size, wrong magic, no such label), SHAPE (images
 * of other extents), RANGE, IO; messages name the file. An empty split is INVALID. */
nas_status nas_class_data_open(nas_ctx *ctx, const nas_class_data_options *options,
                               nas_class_data **out);
void nas_class_data_close(nas_class_data *data);
size_t nas_class_data_count(const nas_class_data *data, nas_class_split split);
int32_t nas_class_data_classes(const nas_class_data *data); /* 1 + the largest label */
int32_t nas_class_data_label(const nas_class_data *data, nas_class_split split, size_t index);
/* nas_class_data_read - [h][w][c] floats as the network reads them; `flip` mirrors, dy and dx shift (zeros come in). */
void nas_class_data_read(const nas_class_data *data, nas_class_split split, size_t index, bool flip,
                         int32_t dy, int32_t dx, float *hwc);
/* nas_class_data_hash - SHA-256 over pixels and labels of a split, in its order. */
const char *nas_class_data_hash(const nas_class_data *data, nas_class_split split);
/* nas_class_data_describe - "cifar10 test_dev.bin: 3000 tune, 1000 reward, 1000 report images, 10 classes". */
const char *nas_class_data_describe(const nas_class_data *data);

/* One split as an nas_exec_read_fn: arg points to one of these. */
typedef struct nas_class_reader {
    const nas_class_data *data;
    nas_class_split split;
} nas_class_reader;
void nas_class_reader_read(void *arg, size_t index, float *hwc);

/* nas_glyph - one rendered digit as h*w*3 bytes, RGB planes: strokes with random slant, size, place, width and colours over a
 * shaded, noisy ground. Same (seed, index, extents), same pixels. Returns the label, 0..9. */
int32_t nas_glyph(uint64_t seed, uint64_t index, int32_t h, int32_t w, uint8_t *planes);

/* nas_class_top1 - share of rows of scores [n][classes] whose largest entry (the first of equals) is the label. */
double nas_class_top1(const nas_class_data *data, nas_class_split split, const float *scores,
                      int32_t classes);

#endif
