/* image_files.c - see image_files.h. The encoders are the libraries themselves, used the plain way. */
#include "image_files.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

int pattern_level(int seed, int y, int x) {
    return (x * 37 + y * 101 + x * y * 13 + seed * 7919 + (x * x * y + seed) % 31 * 5) % 256;
}

nas_image pattern_image(nas_ctx *ctx, int seed, int32_t c, int32_t h, int32_t w) {
    nas_image image = {0};
    cr_assert(nas_image_init(ctx, c, h, w, &image) == NAS_OK, "%s", nas_ctx_message(ctx));
    size_t at = 0;
    for (int k = 0; k < c; k++) {
        for (int y = 0; y < h; y++) {
            for (int x = 0; x < w; x++)
                image.data[at++] = (float)pattern_level(seed + k, y, x) / 255.0f;
        }
    }
    return image;
}

nas_image smooth_image(nas_ctx *ctx, int seed, int32_t h, int32_t w) {
    nas_image image = {0};
    cr_assert(nas_image_init(ctx, 3, h, w, &image) == NAS_OK, "%s", nas_ctx_message(ctx));
    size_t at = 0;
    for (int k = 0; k < 3; k++) {
        for (int y = 0; y < h; y++) {
            for (int x = 0; x < w; x++) {
                image.data[at++] = (float)(0.5 + 0.3 * sin(0.11 * x + 0.07 * y + seed + k) +
                                           0.1 * cos(0.05 * y * (1 + seed % 3)));
            }
        }
    }
    nas_image_quantize8(&image);
    return image;
}

double largest_difference(const nas_image *a, const nas_image *b) {
    cr_assert(a->c == b->c && a->h == b->h && a->w == b->w);
    double most = 0.0;
    for (size_t i = 0; i < (size_t)a->c * (size_t)a->h * (size_t)a->w; i++) {
        most = fmax(most, fabs((double)a->data[i] - (double)b->data[i]));
    }
    return most;
}

static void take_bytes(png_structp png, png_bytep data, size_t n) {
    nas_buf_append(png_get_io_ptr(png), data, n);
}

static void flush_nothing(png_structp png) {
    (void)png;
}

static void set_palette(png_structp png, png_infop info, int entries) {
    png_color palette[256];
    for (int i = 0; i < entries; i++) {
        palette[i] = (png_color){
            .red = (png_byte)i, .green = (png_byte)(255 - i), .blue = (png_byte)(i / 2)};
    }
    png_set_PLTE(png, info, palette, entries);
}

void encode_png(int colour_type, int depth, bool interlaced, int32_t h, int32_t w, nas_buf *out) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    cr_assert(png != NULL && info != NULL);
    if (setjmp(png_jmpbuf(png)) != 0) abort();
    png_set_write_fn(png, out, take_bytes, flush_nothing);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, depth, colour_type,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (colour_type == PNG_COLOR_TYPE_PALETTE) set_palette(png, info, 1 << depth);
    png_write_info(png, info);
    const size_t row_bytes = png_get_rowbytes(png, info);
    uint8_t *pixels = calloc((size_t)h, row_bytes);
    png_bytep *rows = calloc((size_t)h, sizeof *rows);
    cr_assert(pixels != NULL && rows != NULL);
    const int channels = png_get_channels(png, info), bytes = depth == 16 ? 2 : 1;
    for (int y = 0; y < h; y++) {
        rows[y] = pixels + (size_t)y * row_bytes;
        for (int x = 0; x < w; x++) {
            for (int k = 0; k < channels; k++) {
                const int level = pattern_level(k, y, x);
                if (depth < 8) {
                    const int per = 8 / depth, shift = (per - 1 - x % per) * depth;
                    rows[y][x / per] |= (uint8_t)((level & ((1 << depth) - 1)) << shift);
                } else { /* 16 bit: both bytes equal, so that the level is exact */
                    for (int b = 0; b < bytes; b++)
                        rows[y][(x * channels + k) * bytes + b] = (uint8_t)level;
                }
            }
        }
    }
    png_write_image(png, rows);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    free(rows);
    free(pixels);
}

void encode_jpeg(const nas_image *image, jpeg_kind kind, nas_buf *out) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long len = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &len);
    jpeg.image_width = (JDIMENSION)image->w;
    jpeg.image_height = (JDIMENSION)image->h;
    jpeg.input_components = kind == JPEG_GREY ? 1 : kind == JPEG_CMYK ? 4 : 3;
    jpeg.in_color_space = kind == JPEG_GREY   ? JCS_GRAYSCALE
                          : kind == JPEG_CMYK ? JCS_CMYK
                                              : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 95, TRUE);
    if (kind == JPEG_PROGRESSIVE) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    const size_t plane = (size_t)image->h * (size_t)image->w,
                 channels = (size_t)jpeg.input_components;
    uint8_t *row = calloc((size_t)image->w, 4);
    cr_assert(row != NULL);
    for (size_t y = 0; y < (size_t)image->h; y++) {
        for (size_t x = 0; x < (size_t)image->w; x++) {
            for (size_t c = 0; c < channels; c++) {
                const float v = image->data[(c % 3) * plane + y * (size_t)image->w + x];
                row[x * channels + c] = (uint8_t)(v * 255.0f + 0.5f);
            }
        }
        JSAMPROW rows[1] = {row};
        (void)jpeg_write_scanlines(&jpeg, rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    nas_buf_append(out, bytes, len);
    free(row);
    free(bytes);
}

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
    }
    return ~crc;
}

static void put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

void set_png_extents(nas_buf *png, uint32_t w, uint32_t h) {
    uint8_t *p =
        (uint8_t *)png->data; /* signature 8, length 4, "IHDR" 4, width, height, 5 more, CRC */
    cr_assert(png->len > 33);
    put_u32(p + 16, w);
    put_u32(p + 20, h);
    put_u32(p + 29, crc32_of(p + 12, 17));
}

void folder_make(char path[64]) {
    (void)snprintf(path, 64, "/tmp/nas-eval-XXXXXX");
    cr_assert(mkdtemp(path) != NULL);
}

void folder_remove(nas_ctx *ctx, const char *path) {
    cr_assert(nas_remove_tree(ctx, path) == NAS_OK, "%s", nas_ctx_message(ctx));
}

/* full_path - folder/name, with the folders of `name` made. */
static void full_path(nas_ctx *ctx, const char *folder, const char *name, char out[512]) {
    (void)snprintf(out, 512, "%s/%s", folder, name);
    char *slash = strrchr(out, '/');
    *slash = '\0';
    cr_assert(nas_mkdirs(ctx, out) == NAS_OK, "%s", nas_ctx_message(ctx));
    *slash = '/';
}

void write_image(nas_ctx *ctx, const char *folder, const char *name, const nas_image *image) {
    char path[512];
    full_path(ctx, folder, name, path);
    cr_assert(nas_image_write_png(ctx, image, path) == NAS_OK, "%s", nas_ctx_message(ctx));
}

void write_bytes(nas_ctx *ctx, const char *folder, const char *name, const void *data, size_t len) {
    char path[512];
    full_path(ctx, folder, name, path);
    cr_assert(nas_file_write(ctx, path, data, len, 0600) == NAS_OK, "%s", nas_ctx_message(ctx));
}

void count_lines(void *user, nas_log_level level, const char *line) {
    (void)line;
    size_t *count = user;
    if (level == NAS_LOG_WARN) ++*count;
}
