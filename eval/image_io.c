/* image_io.c - PNG and JPEG from memory or file, PNG to file. The only file that knows libpng and libjpeg.
 *
 * Both libraries leave by longjmp on an error. What must survive the jump (the library's handle, the pixels) lives in
 * a `decoder` that the caller of the setjmp function owns, never in a local variable of that function; the caller
 * frees it, whichever way the function ended. A damaged file is an error, also where the library would go on with a
 * warning and made-up pixels (truncated JPEG). Extents are compared with the limits before pixels are allocated. */
#include "eval/image.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <jpeglib.h>
#include <jerror.h>
#include <png.h>

enum {
    FILE_BYTES_MAX = 512 * 1024 * 1024,
    CHUNK_BYTES_MAX =
        8 * 1024 * 1024, /* of one PNG side chunk (profiles, comments) when expanded */
    JPEG_SCANS_MAX =
        200, /* real progressive files have about 10; thousands only serve to waste time */
    MESSAGE_BYTES = 256
};

typedef struct decoder {
    struct jpeg_error_mgr jpeg_errors; /* first: libjpeg hands back a pointer to it */
    struct jpeg_progress_mgr jpeg_progress;
    jmp_buf jump;
    nas_ctx *ctx;
    const uint8_t *bytes;
    size_t len, at; /* `at` = bytes the PNG reader has consumed */
    png_structp png;
    png_infop info;
    struct jpeg_decompress_struct jpeg;
    bool jpeg_open;
    uint8_t *pixels; /* [h][w][3] */
    png_bytep *rows; /* [h] into pixels */
    int32_t h, w;
    nas_status status; /* of the failure that jumped */
    char message[MESSAGE_BYTES];
} decoder;

static void decoder_deinit(decoder *d) {
    if (d->png != NULL) png_destroy_read_struct(&d->png, &d->info, NULL);
    if (d->jpeg_open) jpeg_destroy_decompress(&d->jpeg);
    nas_free(d->rows);
    nas_free(d->pixels);
}

/* check_extents - what both formats do between the header and the pixels: limits, then memory. */
static nas_status check_extents(decoder *d, size_t w, size_t h) {
    if (w < 1 || h < 1 || w > NAS_IMAGE_SIDE_MAX || h > NAS_IMAGE_SIDE_MAX ||
        w * h > (size_t)NAS_IMAGE_PIXELS_MAX) {
        return nas_fail(
            d->ctx, NAS_ERR_RANGE,
            "image of %zux%zu pixels: sides up to %d and %d pixels are read; make it smaller", w, h,
            (int)NAS_IMAGE_SIDE_MAX, (int)NAS_IMAGE_PIXELS_MAX);
    }
    d->w = (int32_t)w;
    d->h = (int32_t)h;
    d->pixels = nas_alloc_array(d->ctx, w * h, 3);
    d->rows = nas_alloc_array(d->ctx, h, sizeof *d->rows);
    if (d->pixels == NULL || d->rows == NULL) return NAS_ERR_NOMEM;
    for (size_t y = 0; y < h; y++)
        d->rows[y] = d->pixels + y * w * 3;
    return NAS_OK;
}

/* ---- PNG ----------------------------------------------------------------------------------------------------- */

static void png_on_error(png_structp png, png_const_charp text) {
    decoder *d = png_get_error_ptr(png);
    if (d->status == NAS_OK) d->status = NAS_ERR_PARSE;
    (void)snprintf(d->message, sizeof d->message, "%s", text);
    longjmp(d->jump, 1);
}

static void png_on_warning(png_structp png, png_const_charp text) {
    (void)png; /* concerns side chunks only; damage to pixels is an error in libpng */
    (void)text;
}

static png_voidp png_allocate(png_structp png, png_alloc_size_t bytes) {
    decoder *d = png_get_mem_ptr(png);
    void *p = nas_alloc_array(d->ctx, bytes, 1);
    if (p == NULL) d->status = NAS_ERR_NOMEM;
    return p;
}

static void png_release(png_structp png, png_voidp p) {
    (void)png;
    nas_free(p);
}

static void png_take(png_structp png, png_bytep to, size_t n) {
    decoder *d = png_get_io_ptr(png);
    if (n > d->len - d->at) png_error(png, "the file ends early (truncated)");
    memcpy(to, d->bytes + d->at, n);
    d->at += n;
}

/* png_open - makes the handle; on failure decoder_deinit cleans up. */
static nas_status png_open(decoder *d) {
    d->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, d, png_on_error, png_on_warning, d,
                                      png_allocate, png_release);
    if (d->png != NULL) d->info = png_create_info_struct(d->png);
    if (d->info == NULL) return nas_fail(d->ctx, NAS_ERR_NOMEM, "PNG: no memory for the reader");
    return NAS_OK;
}

/* png_to_rgb8 - asks libpng for 8-bit RGB whatever is stored. */
static void png_to_rgb8(png_structp png, png_infop info) {
    png_set_scale_16(png);
    png_set_expand(png); /* palette to RGB, 1/2/4-bit grey to 8, a transparent colour to alpha */
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    (void)png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static nas_status png_pixels(decoder *d) {
    if (setjmp(d->jump) != 0) {
        return nas_fail(d->ctx, d->status, "PNG: %s", d->message);
    }
    png_set_read_fn(d->png, d, png_take);
    png_set_user_limits(d->png, PNG_UINT_31_MAX,
                        PNG_UINT_31_MAX); /* check_extents names the limit */
    png_set_chunk_malloc_max(d->png, CHUNK_BYTES_MAX);
    png_set_keep_unknown_chunks(d->png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_read_info(d->png, d->info);
    const nas_status status = check_extents(d, png_get_image_width(d->png, d->info),
                                            png_get_image_height(d->png, d->info));
    if (status != NAS_OK) return status;
    png_to_rgb8(d->png, d->info);
    if (png_get_rowbytes(d->png, d->info) != (size_t)d->w * 3) {
        return nas_fail(d->ctx, NAS_ERR_UNSUPPORTED, "PNG: pixels do not convert to 8-bit RGB");
    }
    png_read_image(d->png, d->rows);
    png_read_end(d->png, NULL); /* a missing end is a truncated file */
    return NAS_OK;
}

/* ---- JPEG ---------------------------------------------------------------------------------------------------- */

static decoder *decoder_of(j_common_ptr jpeg) {
    return (decoder *)(void *)jpeg->err; /* jpeg_errors is the first member */
}

static void jpeg_on_error(j_common_ptr jpeg) {
    decoder *d = decoder_of(jpeg);
    char text[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, text);
    d->status = jpeg->err->msg_code == JERR_OUT_OF_MEMORY ? NAS_ERR_NOMEM : NAS_ERR_PARSE;
    (void)snprintf(d->message, sizeof d->message, "%s", text);
    longjmp(d->jump, 1);
}

/* Level -1 is a warning: libjpeg met damaged data and is about to invent pixels. Levels >= 0 are traces. */
static void jpeg_on_message(j_common_ptr jpeg, int level) {
    if (level < 0) jpeg_on_error(jpeg);
}

static void jpeg_on_progress(j_common_ptr jpeg) {
    decoder *d = decoder_of(jpeg);
    if (d->jpeg.input_scan_number > JPEG_SCANS_MAX) {
        d->status = NAS_ERR_RANGE;
        (void)snprintf(d->message, sizeof d->message, "more than %d scans", (int)JPEG_SCANS_MAX);
        longjmp(d->jump, 1);
    }
}

static nas_status jpeg_pixels(decoder *d) {
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    jpeg->err = jpeg_std_error(&d->jpeg_errors);
    d->jpeg_errors.error_exit = jpeg_on_error;
    d->jpeg_errors.emit_message = jpeg_on_message;
    if (setjmp(d->jump) != 0) {
        return nas_fail(d->ctx, d->status, "JPEG: %s", d->message);
    }
    jpeg_create_decompress(jpeg);
    d->jpeg_open = true;
    d->jpeg_progress.progress_monitor = jpeg_on_progress;
    jpeg->progress = &d->jpeg_progress;
    jpeg_mem_src(jpeg, d->bytes, (unsigned long)d->len);
    (void)jpeg_read_header(jpeg, TRUE);
    if (jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK) {
        return nas_fail(d->ctx, NAS_ERR_UNSUPPORTED,
                        "JPEG: four-colour print data; save it as RGB");
    }
    const nas_status status = check_extents(d, jpeg->image_width, jpeg->image_height);
    if (status != NAS_OK) return status;
    jpeg->out_color_space = JCS_RGB;
    (void)jpeg_start_decompress(jpeg);
    if (jpeg->output_width != (JDIMENSION)d->w || jpeg->output_height != (JDIMENSION)d->h ||
        jpeg->output_components != 3) {
        return nas_fail(d->ctx, NAS_ERR_UNSUPPORTED, "JPEG: pixels do not convert to 8-bit RGB");
    }
    while (jpeg->output_scanline < jpeg->output_height) {
        (void)jpeg_read_scanlines(jpeg, d->rows + jpeg->output_scanline,
                                  jpeg->output_height - jpeg->output_scanline);
    }
    (void)jpeg_finish_decompress(jpeg); /* reads to the end marker: a missing one is a warning */
    return NAS_OK;
}

/* ---- public -------------------------------------------------------------------------------------------------- */

/* to_planar - [h][w][3] bytes to [3][h][w] floats. */
static nas_status to_planar(decoder *d, nas_image *out) {
    nas_image image = {0};
    const nas_status status = nas_image_init(d->ctx, 3, d->h, d->w, &image);
    if (status != NAS_OK) return status;
    const size_t n = (size_t)d->h * (size_t)d->w;
    for (size_t i = 0; i < n; i++) {
        for (size_t c = 0; c < 3; c++) {
            image.data[c * n + i] = (float)d->pixels[i * 3 + c] / 255.0f;
        }
    }
    *out = image;
    return NAS_OK;
}

nas_status nas_image_decode(nas_ctx *ctx, const void *bytes, size_t len, nas_image *out) {
    decoder *d = nas_alloc_array(ctx, 1, sizeof *d); /* holds a jmp_buf: too big for some stacks */
    if (d == NULL) return NAS_ERR_NOMEM;
    d->ctx = ctx;
    d->bytes = bytes;
    d->len = len;
    nas_status status = NAS_OK;
    if (len >= 8 && png_sig_cmp(d->bytes, 0, 8) == 0) {
        status = png_open(d);
        if (status == NAS_OK) status = png_pixels(d);
    } else if (len >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) {
        status = jpeg_pixels(d);
    } else {
        status = nas_fail(ctx, NAS_ERR_PARSE, "neither PNG nor JPEG (%zu bytes)", len);
    }
    if (status == NAS_OK) status = to_planar(d, out);
    decoder_deinit(d);
    nas_free(d);
    return status;
}

nas_status nas_image_read(nas_ctx *ctx, const char *path, nas_image *out) {
    struct stat info;
    if (stat(path, &info) != 0) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) { /* opening a pipe would wait for ever */
        return nas_fail(ctx, NAS_ERR_IO, "%s: not a regular file", path);
    }
    nas_buf buf = {0};
    nas_status status = nas_file_read(ctx, path, FILE_BYTES_MAX, &buf);
    if (status != NAS_OK) return status;
    status = nas_image_decode(ctx, buf.data == NULL ? "" : buf.data, buf.len, out);
    nas_buf_deinit(&buf);
    return nas_wrap(ctx, status, "%s", path);
}

typedef struct encoder {
    jmp_buf jump;
    nas_ctx *ctx;
    png_structp png;
    png_infop info;
    uint8_t *row;
    nas_buf out;
    char message[MESSAGE_BYTES];
} encoder;

static void png_on_write_error(png_structp png, png_const_charp text) {
    encoder *e = png_get_error_ptr(png);
    (void)snprintf(e->message, sizeof e->message, "%s", text);
    longjmp(e->jump, 1);
}

static void png_give(png_structp png, png_bytep from, size_t n) {
    encoder *e = png_get_io_ptr(png);
    nas_buf_append(&e->out, from, n);
}

static void png_flush_nothing(png_structp png) {
    (void)png;
}

static void fill_row(const nas_image *image, int32_t y, uint8_t *row) {
    const size_t plane = (size_t)image->h * (size_t)image->w;
    const size_t channels = (size_t)image->c;
    for (size_t x = 0; x < (size_t)image->w; x++) {
        for (size_t c = 0; c < channels; c++) {
            const float v = image->data[c * plane + (size_t)y * (size_t)image->w + x];
            const float level = v > 0.0f ? (v < 1.0f ? v * 255.0f : 255.0f) : 0.0f;
            row[x * channels + c] = (uint8_t)(level + 0.5f);
        }
    }
}

static nas_status png_encode(encoder *e, const nas_image *image) {
    if (setjmp(e->jump) != 0) {
        return nas_fail(e->ctx, NAS_ERR_INTERNAL, "PNG: %s", e->message);
    }
    png_set_write_fn(e->png, e, png_give, png_flush_nothing);
    png_set_IHDR(e->png, e->info, (png_uint_32)image->w, (png_uint_32)image->h, 8,
                 image->c == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(e->png, e->info);
    for (int32_t y = 0; y < image->h; y++) {
        fill_row(image, y, e->row);
        png_write_row(e->png, e->row);
    }
    png_write_end(e->png, NULL);
    return nas_buf_status(e->ctx, &e->out);
}

nas_status nas_image_write_png(nas_ctx *ctx, const nas_image *image, const char *path) {
    if (image->c != 1 && image->c != 3) {
        return nas_fail(ctx, NAS_ERR_SHAPE, "%s: %" PRId32 " channels, PNG output takes 1 or 3",
                        path, image->c);
    }
    encoder *e = nas_alloc_array(ctx, 1, sizeof *e);
    if (e == NULL) return NAS_ERR_NOMEM;
    e->ctx = ctx;
    nas_status status = NAS_OK;
    e->row = nas_alloc_array(ctx, (size_t)image->w * (size_t)image->c, 1);
    e->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, e, png_on_write_error, png_on_warning);
    if (e->png != NULL) e->info = png_create_info_struct(e->png);
    if (e->row == NULL || e->info == NULL) {
        status = nas_fail(ctx, NAS_ERR_NOMEM, "PNG: no memory for the writer");
    }
    if (status == NAS_OK) status = png_encode(e, image);
    if (status == NAS_OK) status = nas_file_write(ctx, path, e->out.data, e->out.len, 0644);
    if (e->png != NULL) png_destroy_write_struct(&e->png, &e->info);
    nas_buf_deinit(&e->out);
    nas_free(e->row);
    nas_free(e);
    return nas_wrap(ctx, status, "write %s", path);
}
