/* weights_io.c - checkpoint files; the format is in eval/train.h. */
#include "eval/weights_internal.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoints are written as the machine's little-endian words"
#endif

static const char magic[8] = {'N', 'A', 'S', 'W', 'G', 'H', 'T', '\n'};
enum { FORMAT_VERSION = 1 };
static const size_t file_bytes_max = (size_t)1 << 30;

static void put(nas_buf *buf, const void *data, size_t len) {
    nas_buf_append(buf, data, len);
}

static void put_weight(nas_buf *buf, const nas__weight *w) {
    const uint32_t name_len = (uint32_t)strlen(w->name);
    put(buf, &name_len, sizeof name_len);
    put(buf, w->name, name_len);
    put(buf, &w->rank, sizeof w->rank);
    put(buf, w->dims, sizeof w->dims);
    put(buf, w->value, w->count * sizeof *w->value);
    put(buf, w->mean, w->count * sizeof *w->mean);
    put(buf, w->variance, w->count * sizeof *w->variance);
    put(buf, w->steps, w->count * sizeof *w->steps);
}

nas_status nas_weights_save(nas_ctx *ctx, const nas_weights *weights, const char *path) {
    nas_buf buf = {0};
    const uint32_t version = FORMAT_VERSION, n = (uint32_t)weights->n;
    put(&buf, magic, sizeof magic);
    put(&buf, &version, sizeof version);
    put(&buf, &n, sizeof n);
    put(&buf, &weights->steps, sizeof weights->steps);
    for (size_t i = 0; i < weights->n; i++)
        put_weight(&buf, &weights->items[i]);
    nas_status status = nas_buf_status(ctx, &buf);
    if (status == NAS_OK) {
        uint8_t digest[NAS_SHA256_BYTES];
        nas_sha256_bytes(buf.data, buf.len, digest);
        put(&buf, digest, sizeof digest);
        status = nas_buf_status(ctx, &buf);
    }
    if (status == NAS_OK) status = nas_file_write(ctx, path, buf.data, buf.len, 0644);
    nas_buf_deinit(&buf);
    return nas_wrap(ctx, status, "checkpoint '%s'", path);
}

/* Reading position; a read past the end sets `torn` and gives zeros. */
typedef struct cursor {
    const char *at;
    size_t left;
    bool torn;
} cursor;

static void take(cursor *c, void *out, size_t len) {
    if (c->torn || c->left < len) {
        c->torn = true;
        memset(out, 0, len);
        return;
    }
    memcpy(out, c->at, len);
    c->at += len;
    c->left -= len;
}

static nas_status torn(nas_ctx *ctx) {
    return nas_fail(ctx, NAS_ERR_PARSE, "content ends early: the file is not a whole checkpoint");
}

static nas_status take_header(nas_ctx *ctx, cursor *c, const nas_weights *weights,
                              uint64_t *steps) {
    char seen[sizeof magic];
    uint32_t version = 0, n = 0;
    take(c, seen, sizeof seen);
    take(c, &version, sizeof version);
    take(c, &n, sizeof n);
    take(c, steps, sizeof *steps);
    if (c->torn) return torn(ctx);
    if (version != FORMAT_VERSION) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "version %" PRIu32 ", this program reads %d",
                        version, FORMAT_VERSION);
    }
    if (n != weights->n) {
        return nas_fail(ctx, NAS_ERR_SHAPE, "%" PRIu32 " tensors, this network has %zu", n,
                        weights->n);
    }
    return NAS_OK;
}

/* Name and shape of the next tensor must be those of w; its content stays at *content. */
static nas_status take_weight(nas_ctx *ctx, cursor *c, const nas__weight *w, const char **content) {
    uint32_t name_len = 0;
    int32_t rank = 0, dims[4];
    take(c, &name_len, sizeof name_len);
    if (c->torn || name_len > c->left) return torn(ctx);
    const char *name = c->at;
    c->at += name_len;
    c->left -= name_len;
    take(c, &rank, sizeof rank);
    take(c, dims, sizeof dims);
    if (c->torn) return torn(ctx);
    const bool named = name_len == strlen(w->name) && memcmp(name, w->name, name_len) == 0;
    if (!named || rank != w->rank || memcmp(dims, w->dims, sizeof dims) != 0) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "tensor '%.*s' [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "] where this network has '%s' [%" PRId32 ",%" PRId32 ",%" PRId32
                        ",%" PRId32 "]",
                        name_len > 99 ? 99 : (int)name_len, name, dims[0], dims[1], dims[2],
                        dims[3], w->name, w->dims[0], w->dims[1], w->dims[2], w->dims[3]);
    }
    const size_t bytes = w->count * (3 * sizeof(float) + sizeof(uint32_t));
    if (c->left < bytes) return torn(ctx);
    *content = c->at;
    c->at += bytes;
    c->left -= bytes;
    return NAS_OK;
}

static void copy_content(nas__weight *w, const char *content) {
    const size_t bytes = w->count * sizeof(float);
    memcpy(w->value, content, bytes);
    memcpy(w->mean, content + bytes, bytes);
    memcpy(w->variance, content + 2 * bytes, bytes);
    memcpy(w->steps, content + 3 * bytes, w->count * sizeof *w->steps);
}

/* Two passes over the same bytes: everything is checked before the first value changes. */
static nas_status load_from(nas_ctx *ctx, nas_weights *weights, cursor whole) {
    uint64_t steps = 0;
    for (int pass = 0; pass < 2; pass++) {
        cursor c = whole;
        nas_status status = take_header(ctx, &c, weights, &steps);
        for (size_t i = 0; status == NAS_OK && i < weights->n; i++) {
            const char *content = NULL;
            status = take_weight(ctx, &c, &weights->items[i], &content);
            if (status == NAS_OK && pass == 1) copy_content(&weights->items[i], content);
        }
        if (status != NAS_OK) return status;
        if (c.left != 0) {
            return nas_fail(ctx, NAS_ERR_PARSE, "%zu bytes too many at the end", c.left);
        }
    }
    weights->steps = steps;
    return NAS_OK;
}

static nas_status check_file(nas_ctx *ctx, const nas_buf *buf) {
    if (buf->len < sizeof magic + NAS_SHA256_BYTES || memcmp(buf->data, magic, sizeof magic) != 0) {
        return nas_fail(ctx, NAS_ERR_PARSE, "not a checkpoint (%zu bytes)", buf->len);
    }
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_bytes(buf->data, buf->len - NAS_SHA256_BYTES, digest);
    if (memcmp(digest, buf->data + buf->len - NAS_SHA256_BYTES, sizeof digest) != 0) {
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "damaged: the content does not have the hash at the end of the file");
    }
    return NAS_OK;
}

nas_status nas_weights_load(nas_ctx *ctx, nas_weights *weights, const char *path) {
    nas_buf buf = {0};
    nas_status status = nas_file_read(ctx, path, file_bytes_max, &buf);
    if (status == NAS_OK) status = check_file(ctx, &buf);
    if (status == NAS_OK) {
        const cursor whole = {.at = buf.data, .left = buf.len - NAS_SHA256_BYTES};
        status = load_from(ctx, weights, whole);
    }
    nas_buf_deinit(&buf);
    return nas_wrap(ctx, status, "checkpoint '%s'", path);
}
