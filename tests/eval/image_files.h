/* image_files.h - pictures, encoded files and folders for the tests of eval's images and data sets. */
#ifndef NAS_TESTS_EVAL_IMAGE_FILES_H
#define NAS_TESTS_EVAL_IMAGE_FILES_H

#include "eval/data.h"

/* pattern_level - level 0..255 of a busy deterministic picture; oracle_image.py has the same formula. */
int pattern_level(int seed, int y, int x);
/* pattern_image - c planes, plane k from seed + k. Ends the test on failure. */
nas_image pattern_image(nas_ctx *ctx, int seed, int32_t c, int32_t h, int32_t w);
/* smooth_image - RGB without fine detail, so that JPEG and resampling stay close to it. */
nas_image smooth_image(nas_ctx *ctx, int seed, int32_t h, int32_t w);
double largest_difference(const nas_image *a, const nas_image *b);

/* PNG of pattern_level in the given libpng colour type and bit depth; `interlaced` = Adam7. */
void encode_png(int colour_type, int depth, bool interlaced, int32_t h, int32_t w, nas_buf *out);
typedef enum jpeg_kind { JPEG_COLOUR, JPEG_GREY, JPEG_PROGRESSIVE, JPEG_CMYK } jpeg_kind;
void encode_jpeg(const nas_image *image, jpeg_kind kind, nas_buf *out);
/* set_png_extents - overwrites the extents in the header of an encoded PNG and repairs its checksum. */
void set_png_extents(nas_buf *png, uint32_t w, uint32_t h);

/* A fresh folder below /tmp; removed with all its content by folder_remove. */
void folder_make(char path[64]);
void folder_remove(nas_ctx *ctx, const char *path);
/* write_image / write_bytes - into folder/name, making the subfolders of `name`. */
void write_image(nas_ctx *ctx, const char *folder, const char *name, const nas_image *image);
void write_bytes(nas_ctx *ctx, const char *folder, const char *name, const void *data, size_t len);

/* quiet - a log sink that counts lines; `user` is a size_t. */
void count_lines(void *user, nas_log_level level, const char *line);

#endif
