/* class_read.c - labelled images from files: CIFAR binary batches, IDX (plain or gzip), a folder a class, raw tensors.
 * Sizes are checked against what the header or the network says before anything is read into place. */
#define _DEFAULT_SOURCE /* scandir's alphasort */
#include "eval/class_internal.h"
#include "eval/image.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { PATH_MAX_BYTES = 1024, FILE_BYTES_MAX = 1 << 30 };

size_t nas__class_image_bytes(const nas__class_set *s) {
    return (size_t)s->h * (size_t)s->w * (size_t)s->c * (s->is_float ? sizeof(float) : 1);
}

nas_status nas__class_add(nas_ctx *ctx, nas__class_set *s, int32_t label, uint8_t **pixels) {
    if (label < 0 || label >= NAS_CLASS_LABELS_MAX)
        return nas_fail(ctx, NAS_ERR_PARSE, "label %d of image %zu, limit 0..%d", (int)label, s->n,
                        NAS_CLASS_LABELS_MAX - 1);
    const size_t bytes = nas__class_image_bytes(s);
    size_t need = 0;
    nas_status status = nas_mul_size(ctx, s->n + 1, bytes, &need);
    if (status == NAS_OK) status = nas_grow(ctx, &s->pixels, &s->cap_bytes, need, 1);
    if (status == NAS_OK)
        status = nas_grow(ctx, &s->labels, &s->cap_labels, s->n + 1, sizeof *s->labels);
    if (status != NAS_OK) return status;
    *pixels = s->pixels + s->n * bytes;
    s->labels[s->n++] = label;
    return NAS_OK;
}

void nas__class_set_deinit(nas__class_set *s) {
    nas_free(s->pixels);
    nas_free(s->labels);
    *s = (nas__class_set){0};
}

static void planes_to_pixels(const uint8_t *planes, const nas__class_set *s, uint8_t *to) {
    const size_t n = (size_t)s->h * (size_t)s->w, c = (size_t)s->c;
    for (size_t p = 0; p < n; p++) {
        for (size_t k = 0; k < c; k++)
            to[p * c + k] = planes[k * n + p];
    }
}

/* ---- CIFAR -------------------------------------------------------------------------------------------------------- */

static nas_status read_batch(nas_ctx *ctx, const char *path, nas__class_set *s) {
    nas_buf file = {0};
    nas_status status = nas_file_read(ctx, path, FILE_BYTES_MAX, &file);
    if (status != NAS_OK) return status;
    const size_t record = nas__class_image_bytes(s) + 1;
    if (file.len == 0 || file.len % record != 0) {
        status =
            nas_fail(ctx, NAS_ERR_PARSE,
                     "%s: %zu bytes are no whole number of records of %zu (a label, %d planes of "
                     "%dx%d)",
                     path, file.len, record, (int)s->c, (int)s->w, (int)s->h);
    }
    for (size_t i = 0; status == NAS_OK && i < file.len / record; i++) {
        const uint8_t *from = (const uint8_t *)file.data + i * record;
        uint8_t *to = NULL;
        status = nas__class_add(ctx, s, from[0], &to);
        if (status == NAS_OK) planes_to_pixels(from + 1, s, to);
    }
    nas_buf_deinit(&file);
    return nas_wrap(ctx, status, "data set");
}

/* ---- folders ------------------------------------------------------------------------------------------------------ */

static int visible(const struct dirent *d) {
    return d->d_name[0] != '.';
}

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What is done with entry `index` of a folder; label: that of the folder itself. */
typedef nas_status (*entry_fn)(nas_ctx *ctx, const char *path, int32_t index, int32_t label,
                               nas__class_set *s);

/* fn for every visible entry, in byte order of name. scandir has its own memory, which is returned here. */
static nas_status each_entry(nas_ctx *ctx, const char *folder, entry_fn fn, int32_t label,
                             nas__class_set *s) {
    struct dirent **list = NULL;
    const int n = scandir(folder, &list, visible, alphasort);
    if (n < 0) return nas_fail(ctx, NAS_ERR_NOTFOUND, "data folder '%s' cannot be read", folder);
    nas_status status = NAS_OK;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX_BYTES];
        const int len = snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (status == NAS_OK && (len < 0 || (size_t)len >= sizeof path))
            status = nas_fail(ctx, NAS_ERR_RANGE, "data folder '%s': path too long", folder);
        if (status == NAS_OK) status = fn(ctx, path, i, label, s);
        (free)(list[i]); /* own memory of scandir */
    }
    (free)(list); /* own memory of scandir */
    return status;
}

static nas_status batch_entry(nas_ctx *ctx, const char *path, int32_t index, int32_t label,
                              nas__class_set *s) {
    (void)index;
    (void)label;
    const size_t len = strlen(path);
    if (len < 4 || strcmp(path + len - 4, ".bin") != 0) return NAS_OK;
    return read_batch(ctx, path, s);
}

static nas_status read_cifar(nas_ctx *ctx, const char *path, nas__class_set *s) {
    return is_folder(path) ? each_entry(ctx, path, batch_entry, 0, s) : read_batch(ctx, path, s);
}

static nas_status add_image(nas_ctx *ctx, const nas_image *image, int32_t label,
                            nas__class_set *s) {
    uint8_t *to = NULL;
    nas_status status = nas__class_add(ctx, s, label, &to);
    const size_t n = (size_t)s->h * (size_t)s->w, c = (size_t)s->c;
    for (size_t i = 0; status == NAS_OK && i < n * c; i++) {
        float v = image->data[i % c * n + i / c];
        v = v < 0 ? 0 : v > 1 ? 1 : v;
        to[i] = (uint8_t)(v * 255.0F + 0.5F);
    }
    return status;
}

static nas_status image_entry(nas_ctx *ctx, const char *path, int32_t index, int32_t label,
                              nas__class_set *s) {
    (void)index;
    nas_image read = {0}, grey = {0}, fitted = {0};
    nas_status status = nas_image_read(ctx, path, &read);
    const nas_image *from = &read;
    if (status == NAS_OK && s->c == 1) {
        status = nas_image_luma(ctx, &read, &grey);
        from = &grey;
    }
    if (status == NAS_OK && s->c != from->c)
        status = nas_fail(ctx, NAS_ERR_SHAPE, "%s: %d channels, the network reads %d", path,
                          (int)from->c, (int)s->c);
    if (status == NAS_OK && (from->h != s->h || from->w != s->w)) {
        status = nas_image_resize_bicubic(ctx, from, s->h, s->w, &fitted);
        from = &fitted;
    }
    if (status == NAS_OK) status = add_image(ctx, from, label, s);
    nas_image_deinit(&read);
    nas_image_deinit(&grey);
    nas_image_deinit(&fitted);
    return status;
}

/* Folder `index` is class `index`. */
static nas_status class_entry(nas_ctx *ctx, const char *path, int32_t index, int32_t label,
                              nas__class_set *s) {
    (void)label;
    if (!is_folder(path))
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: only one folder a class may lie here", path);
    return each_entry(ctx, path, image_entry, index, s);
}

/* ---- IDX ---------------------------------------------------------------------------------------------------------- */

static nas_status read_packed(nas_ctx *ctx, const char *path, nas_buf *out) {
    gzFile file = gzopen(path, "rb"); /* reads plain files as well */
    if (file == NULL) return nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: cannot be opened", path);
    char block[1 << 14];
    int n = 0;
    while ((n = gzread(file, block, sizeof block)) > 0 && out->len <= FILE_BYTES_MAX)
        nas_buf_append(out, block, (size_t)n);
    const bool broken = n < 0;
    (void)gzclose(file); /* read only: nothing can be lost */
    if (broken) return nas_fail(ctx, NAS_ERR_PARSE, "%s: damaged or cut gzip stream", path);
    if (out->len > FILE_BYTES_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: more than %d bytes", path, FILE_BYTES_MAX);
    return nas_buf_status(ctx, out);
}

static uint32_t big_endian(const char *at) {
    const uint8_t *b = (const uint8_t *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static nas_status check_idx(nas_ctx *ctx, const char *path, const nas_buf *file, uint32_t rank,
                            uint32_t *dims) {
    const size_t head = 4 + 4 * (size_t)rank;
    if (file->len < head || big_endian(file->data) != (0x0800 | rank))
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: no IDX file of bytes with %u axes", path, rank);
    uint64_t count = 1;
    for (uint32_t i = 0; i < rank; i++) {
        dims[i] = big_endian(file->data + 4 + 4 * i);
        if (dims[i] == 0 || dims[i] > FILE_BYTES_MAX)
            return nas_fail(ctx, NAS_ERR_PARSE, "%s: extent %u", path, dims[i]);
        count *= dims[i];
        if (count > FILE_BYTES_MAX) break;
    }
    if (count != file->len - head)
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: %zu bytes of data, the header says %" PRIu64, path,
                        file->len - head, count);
    return NAS_OK;
}

static nas_status read_idx_pair(nas_ctx *ctx, const char *images, const char *labels,
                                nas__class_set *s) {
    nas_buf pixels = {0}, classes = {0};
    uint32_t dims[3] = {0}, n = 0;
    nas_status status = read_packed(ctx, images, &pixels);
    if (status == NAS_OK) status = read_packed(ctx, labels, &classes);
    if (status == NAS_OK) status = check_idx(ctx, images, &pixels, 3, dims);
    if (status == NAS_OK) status = check_idx(ctx, labels, &classes, 1, &n);
    if (status == NAS_OK && n != dims[0])
        status = nas_fail(ctx, NAS_ERR_PARSE, "%s has %u images, %s %u labels", images, dims[0],
                          labels, n);
    if (status == NAS_OK && (s->c != 1 || (uint32_t)s->h != dims[1] || (uint32_t)s->w != dims[2]))
        status = nas_fail(ctx, NAS_ERR_SHAPE, "%s: images of %ux%ux1, the network reads %dx%dx%d",
                          images, dims[1], dims[2], (int)s->h, (int)s->w, (int)s->c);
    const size_t bytes = nas__class_image_bytes(s);
    for (uint32_t i = 0; status == NAS_OK && i < n; i++) {
        uint8_t *to = NULL;
        status = nas__class_add(ctx, s, (uint8_t)classes.data[8 + i], &to);
        if (status == NAS_OK) memcpy(to, pixels.data + 16 + i * bytes, bytes);
    }
    nas_buf_deinit(&pixels);
    nas_buf_deinit(&classes);
    return status;
}

/* ---- raw ---------------------------------------------------------------------------------------------------------- */

static int32_t raw_label(const nas_buf *labels, size_t n, size_t i) {
    if (labels->len == n) return (uint8_t)labels->data[i];
    int32_t value = 0;
    memcpy(&value, labels->data + i * sizeof value, sizeof value);
    return value;
}

static nas_status read_raw_pair(nas_ctx *ctx, const char *images, const char *labels,
                                nas__class_set *s) {
    nas_buf pixels = {0}, classes = {0};
    s->is_float = true;
    const size_t bytes = nas__class_image_bytes(s);
    nas_status status = nas_file_read(ctx, images, FILE_BYTES_MAX, &pixels);
    if (status == NAS_OK) status = nas_file_read(ctx, labels, FILE_BYTES_MAX, &classes);
    const size_t n = pixels.len / bytes;
    if (status == NAS_OK && (n == 0 || pixels.len % bytes != 0))
        status = nas_fail(ctx, NAS_ERR_PARSE, "%s: %zu bytes are no whole number of tensors of %zu",
                          images, pixels.len, bytes);
    if (status == NAS_OK && classes.len != n && classes.len != 4 * n)
        status =
            nas_fail(ctx, NAS_ERR_PARSE, "%s: %zu bytes for %zu labels: one byte or one int32 each",
                     labels, classes.len, n);
    const size_t plane = (size_t)s->h * (size_t)s->w, c = (size_t)s->c;
    for (size_t i = 0; status == NAS_OK && i < n; i++) {
        uint8_t *to = NULL;
        status = nas__class_add(ctx, s, raw_label(&classes, n, i), &to);
        for (size_t k = 0; status == NAS_OK && k < plane * c; k++) {
            memcpy(to + k * sizeof(float),
                   pixels.data + i * bytes + (k % c * plane + k / c) * sizeof(float),
                   sizeof(float));
        }
    }
    nas_buf_deinit(&pixels);
    nas_buf_deinit(&classes);
    return status;
}

/* ---- choice ------------------------------------------------------------------------------------------------------- */

typedef nas_status (*pair_fn)(nas_ctx *ctx, const char *images, const char *labels,
                              nas__class_set *s);

/* "images:labels" and so on. */
static nas_status read_pairs(nas_ctx *ctx, const char *path, pair_fn fn, nas__class_set *s) {
    char *text = nas_strdup(ctx, path);
    nas_status status = text == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (char *images = text; status == NAS_OK && images != NULL;) {
        char *labels = strchr(images, ':');
        if (labels == NULL) {
            status = nas_fail(ctx, NAS_ERR_INVALID, "data path '%s': give \"images:labels\"", path);
            break;
        }
        *labels++ = '\0';
        char *next = strchr(labels, ':');
        if (next != NULL) *next++ = '\0';
        status = fn(ctx, images, labels, s);
        images = next;
    }
    nas_free(text);
    return status;
}

nas_status nas__class_read_set(nas_ctx *ctx, const char *kind, const char *path,
                               nas__class_set *s) {
    if (strcmp(kind, "cifar10") == 0) return read_cifar(ctx, path, s);
    if (strcmp(kind, "folder") == 0) return each_entry(ctx, path, class_entry, 0, s);
    if (strcmp(kind, "idx") == 0) return read_pairs(ctx, path, read_idx_pair, s);
    if (strcmp(kind, "raw") == 0) return read_pairs(ctx, path, read_raw_pair, s);
    return nas_fail(ctx, NAS_ERR_INVALID, "data kind '%s': use glyphs, cifar10, idx, folder or raw",
                    kind);
}
