/* compile.c - graph to executable through the cache: lower, emit, compile what is new, link.
 *
 * Two keys. The object of model.c depends on its text, flags and compiler alone, so other weights reuse it. The
 * executable's key adds model.h (the name), the weights and the main program. */
#include "compiler/compiler_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything that is emitted for one graph. */
typedef struct texts {
    nas_buf c, h, weights;
    const char *main_c, *cpu_check_h;
} texts;

typedef struct build {
    const nas_compile_options *options;
    nas__toolchain toolchain;
    texts t;
    char object_key[NAS_SHA256_HEX], key[NAS_SHA256_HEX];
    char object_path[512], work[512];
} build;

static void build_deinit(build *b) {
    nas_buf_deinit(&b->t.c);
    nas_buf_deinit(&b->t.h);
    nas_buf_deinit(&b->t.weights);
}

/* The weights as assembler text: the C parser would take most of the time of a candidate. */
static nas_status emit_weights_asm(nas_ctx *ctx, const nas__form *f, nas_buf *out) {
    const size_t n = nas__form_weight_floats(f);
    float *weights = nas_alloc_array(ctx, n, sizeof *weights);
    if (weights == NULL) return NAS_ERR_NOMEM;
    const nas_status status = nas__form_pack(ctx, f, weights);
    if (status == NAS_OK) {
        nas_buf_printf(
            out,
            "    .section .rodata\n    .globl model_weights\n    .balign 64\n"
            "    .type model_weights, %%object\n    .size model_weights, %zu\nmodel_weights:\n",
            n * sizeof *weights);
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = 0;
            memcpy(&bits, &weights[i], sizeof bits);
            nas_buf_printf(out, "%s0x%" PRIx32 "%s", i % 8 == 0 ? "    .4byte " : "", bits,
                           i % 8 == 7 || i + 1 == n ? "\n" : ",");
        }
        nas_buf_puts(out, "    .section .note.GNU-stack,\"\",%progbits\n");
    }
    nas_free(weights);
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

static nas_status emit_all(nas_ctx *ctx, const nas_graph *graph, build *b, nas_artifact *artifact) {
    nas__form form;
    nas_status status = nas__form_lower(ctx, graph, b->options, &form);
    if (status != NAS_OK) return status;
    status = nas__form_emit_c(ctx, &form, &b->t.c);
    if (status == NAS_OK) status = nas__form_emit_h(ctx, &form, &b->t.h);
    if (status == NAS_OK) status = emit_weights_asm(ctx, &form, &b->t.weights);
    artifact->arena_bytes = nas__form_arena_bytes(&form);
    nas__form_free(&form);
    b->t.main_c = nas__rt_file("bench_main.c");
    b->t.cpu_check_h = nas__rt_file("cpu_check.h");
    const char *peak_c = nas__rt_file("peak.c");
    if (status == NAS_OK && (b->t.main_c == NULL || b->t.cpu_check_h == NULL || peak_c == NULL)) {
        status = nas_fail(ctx, NAS_ERR_INTERNAL, "compiler/rt/ is not embedded in this build");
    }
    if (status == NAS_OK) {
        nas_buf_puts(&b->t.c, peak_c); /* the peak loop has the flags of the model */
        status = nas_buf_status(ctx, &b->t.c);
    }
    return status;
}

static void hash_text(nas_sha256 *h, const char *text, size_t len) {
    nas_sha256_update(h, text, len);
    nas_sha256_update(h, "", 1); /* texts do not run into each other */
}

static void make_keys(build *b) {
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256 h;
    nas_sha256_init(&h);
    hash_text(&h, b->t.c.data, b->t.c.len);
    hash_text(&h, b->toolchain.compiler, strlen(b->toolchain.compiler));
    hash_text(&h, b->toolchain.version, strlen(b->toolchain.version));
    hash_text(&h, b->toolchain.flags, strlen(b->toolchain.flags));
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, b->object_key);
    nas_sha256_init(&h);
    hash_text(&h, b->object_key, strlen(b->object_key));
    hash_text(&h, b->t.h.data, b->t.h.len);
    hash_text(&h, b->t.weights.data, b->t.weights.len);
    hash_text(&h, b->t.main_c, strlen(b->t.main_c));
    hash_text(&h, b->t.cpu_check_h, strlen(b->t.cpu_check_h));
    hash_text(&h, b->toolchain.base_flags, strlen(b->toolchain.base_flags));
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, b->key);
}

/* A work file: no need for atomicity, the folder is ours. */
static nas_status write_work(nas_ctx *ctx, const build *b, const char *name, const char *data,
                             size_t len) {
    char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", b->work, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: cannot be written", path);
    const bool wrote = fwrite(data, 1, len, file) == len;
    if (fclose(file) != 0 || !wrote) {
        return nas_fail(ctx, NAS_ERR_IO,
                        "%s: disk full? %zu bytes were not written; free some space", path, len);
    }
    return NAS_OK;
}

/* The object of model.c, from the cache or compiled into it. */
static nas_status need_object(nas_ctx *ctx, build *b) {
    char sum[NAS_SHA256_HEX];
    if (nas__cache_find(b->object_path, sum)) return NAS_OK;
    nas_status status = write_work(ctx, b, "model.c", b->t.c.data, b->t.c.len);
    const char *const args[] = {"-c", "model.c", "-o", "model.o", NULL};
    if (status == NAS_OK) status = nas__cc(ctx, &b->toolchain, b->work, args);
    if (status != NAS_OK) return status;
    char object[600];
    (void)snprintf(object, sizeof object, "%s/model.o", b->work);
    return nas__cache_put(ctx, object, b->object_path, 0444, sum);
}

static nas_status link_model(nas_ctx *ctx, build *b) {
    nas_status status = write_work(ctx, b, "bench_main.c", b->t.main_c, strlen(b->t.main_c));
    if (status == NAS_OK)
        status = write_work(ctx, b, "cpu_check.h", b->t.cpu_check_h, strlen(b->t.cpu_check_h));
    if (status == NAS_OK)
        status = write_work(ctx, b, "weights.s", b->t.weights.data, b->t.weights.len);
    if (status != NAS_OK) return status;
    char object[600]; /* the compiler runs in the work folder */
    if (b->object_path[0] == '/') {
        (void)snprintf(object, sizeof object, "%s", b->object_path);
    } else {
        const char *below = b->object_path + strlen(b->options->cache_dir);
        (void)snprintf(object, sizeof object, "..%s", below);
    }
    /* The main program is outside of what it times: the fastest compile wins. It has to start on any processor of the
     * architecture to say what is missing, so it has none of the target's flags. */
    nas__toolchain base = b->toolchain;
    (void)snprintf(base.flags, sizeof base.flags, "%s", b->toolchain.base_flags);
    const char *args[] = {"-O0", "bench_main.c", "weights.s", object, "-o", "model", NULL, NULL};
    if (!b->options->target->runs_here)
        args[6] = "-static"; /* a device need not have our C library */
    return nas__cc(ctx, &base, b->work, args);
}

/* Everything that needs the work folder: one place to clean it up. */
static nas_status compile_into(nas_ctx *ctx, build *b, const char *path, char sum[NAS_SHA256_HEX]) {
    nas_status status = nas__cache_work_dir(ctx, b->options->cache_dir, sizeof b->work, b->work);
    if (status != NAS_OK) return status;
    status = write_work(ctx, b, "model.h", b->t.h.data, b->t.h.len);
    if (status == NAS_OK) status = need_object(ctx, b);
    if (status == NAS_OK) status = link_model(ctx, b);
    if (status == NAS_OK) {
        char made[600];
        (void)snprintf(made, sizeof made, "%s/model", b->work);
        status = nas__cache_put(ctx, made, path, 0555, sum);
    }
    nas_ctx *quiet = nas_ctx_child(ctx); /* keeps the message of a failure above */
    if (quiet != NULL) (void)nas_remove_tree(quiet, b->work);
    nas_ctx_free(quiet);
    return status;
}

static nas_status find_or_compile(nas_ctx *ctx, build *b, nas_artifact *a) {
    const char *dir = b->options->cache_dir;
    nas_status status =
        nas__cache_path(ctx, dir, b->object_key, ".o", sizeof b->object_path, b->object_path);
    if (status == NAS_OK)
        status = nas__cache_path(ctx, dir, b->key, ".model", sizeof a->path, a->path);
    if (status != NAS_OK) return status;
    a->from_cache = nas__cache_find(a->path, a->sha256);
    if (!a->from_cache) {
        const int64_t start = nas_now_ns();
        status = compile_into(ctx, b, a->path, a->sha256);
        a->compile_s = (double)(nas_now_ns() - start) * 1e-9;
    }
    struct stat info;
    if (status == NAS_OK && stat(a->path, &info) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s vanished from the cache", a->path);
    }
    if (status == NAS_OK) a->size_bytes = (uint64_t)info.st_size;
    return status;
}

nas_status nas_compile(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                       nas_artifact *out) {
    build b = {.options = options};
    nas_artifact artifact = {0};
    nas_status status = nas__toolchain_open(ctx, options, &b.toolchain);
    if (status == NAS_OK) status = nas_check_cancel(ctx);
    if (status == NAS_OK) status = emit_all(ctx, graph, &b, &artifact);
    if (status == NAS_OK) {
        make_keys(&b);
        status = find_or_compile(ctx, &b, &artifact);
    }
    if (status == NAS_OK) {
        memcpy(artifact.source_sha256, b.key, sizeof artifact.source_sha256);
        (void)snprintf(artifact.target, sizeof artifact.target, "%s", options->target->name);
        (void)snprintf(artifact.compiler, sizeof artifact.compiler, "%s", b.toolchain.version);
        (void)snprintf(artifact.flags, sizeof artifact.flags, "%s", b.toolchain.flags);
        *out = artifact;
    }
    build_deinit(&b);
    return status;
}
