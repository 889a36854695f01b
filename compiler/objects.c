/* objects.c - an executable from objects: every unit, the main program, the driver and the weights are compiled apart.
 *
 * An object is found by a hash of all that it is made from: text, flags, compiler. Units and the main program are the
 * same for many networks, so a new network usually compiles its driver alone, and assembles its weights while linking.
 * Objects that are missing compile in parallel. Each compiler run has a folder of its own below the build's folder. */
#include "compiler/compiler_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define COMMON_HEAD                                                                                \
    "#include <stddef.h>\n\n"                                                                      \
    "#define HELPER static inline __attribute__((unused))\n"
static const char object_head[] = COMMON_HEAD "#define KERNEL\n\n";
static const char bundle_head[] = COMMON_HEAD
    "#define KERNEL static __attribute__((noinline, unused)) /* external where objects are cached "
    "apart */\n\n";

/* ---- the pieces -------------------------------------------------------------------------------------------------- */

nas__unit *nas__sources_unit(nas__sources *s, const char *name) {
    for (size_t i = 0; i < s->n_units; i++) {
        if (strcmp(s->units[i].name, name) == 0) return NULL;
    }
    char *copy = nas_strdup(NULL, name);
    if (copy == NULL ||
        nas_grow(NULL, &s->units, &s->cap_units, s->n_units + 1, sizeof *s->units) != NAS_OK) {
        nas_free(copy);
        s->failed = true;
        return NULL;
    }
    nas__unit *unit = &s->units[s->n_units++];
    *unit = (nas__unit){.name = copy};
    return unit;
}

nas_status nas__sources_status(nas_ctx *ctx, const nas__sources *s) {
    if (s->failed) return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for emitted text");
    const nas_buf *parts[] = {&s->head, &s->prelude, &s->body, &s->header};
    nas_status status = NAS_OK;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == NAS_OK; i++)
        status = nas_buf_status(ctx, parts[i]);
    for (size_t i = 0; i < s->n_units && status == NAS_OK; i++)
        status = nas_buf_status(ctx, &s->units[i].text);
    for (size_t i = 0; i < s->n_units && status == NAS_OK; i++)
        status = nas_buf_status(ctx, &s->units[i].code.bytes);
    return status;
}

void nas__sources_deinit(nas__sources *s) {
    for (size_t i = 0; i < s->n_units; i++) {
        nas_free(s->units[i].name);
        nas_buf_deinit(&s->units[i].text);
        nas_buf_deinit(&s->units[i].code.bytes);
    }
    nas_free(s->units);
    nas_free(s->weights);
    nas_buf_deinit(&s->head);
    nas_buf_deinit(&s->prelude);
    nas_buf_deinit(&s->body);
    nas_buf_deinit(&s->header);
    *s = (nas__sources){0};
}

static void append(nas_buf *out, const nas_buf *part) {
    nas_buf_append(out, part->data, part->len);
}

void nas__sources_text(const nas__sources *s, nas_buf *out) {
    append(out, &s->head);
    nas_buf_puts(out, bundle_head);
    append(out, &s->prelude);
    for (size_t i = 0; i < s->n_units; i++) {
        const nas__unit *unit = &s->units[i];
        append(out, &unit->text);
        if (unit->code.bytes.len > 0) nas__machine_code_text(&unit->code, unit->name, out);
    }
    append(out, &s->body);
}

/* The heads of the functions that others call. */
static void append_prototypes(const nas__unit *unit, nas_buf *out) {
    static const char mark[] = "KERNEL ";
    const char *line = unit->text.data;
    while (line != NULL && *line != '\0') {
        if (strncmp(line, mark, sizeof mark - 1) == 0) {
            const char *end = strstr(line, ") {\n");
            if (end == NULL) return;
            const char *head = line + sizeof mark - 1;
            nas_buf_append(out, head, (size_t)(end + 1 - head));
            nas_buf_puts(out, ";\n");
        }
        line = strchr(line, '\n');
        if (line != NULL) line++;
    }
}

static void driver_text(const nas__sources *s, nas_buf *out) {
    append(out, &s->head);
    nas_buf_puts(out, object_head);
    for (size_t i = 0; i < s->n_units; i++)
        append_prototypes(&s->units[i], out);
    nas_buf_puts(out, "\n");
    append(out, &s->body);
    nas_buf_puts(out, "\n#include \"model_facts.h\"\n");
}

/* ---- one compiler run -------------------------------------------------------------------------------------------- */

enum { FILES_MAX = 12, PARTS_MAX = 8, PATH_BYTES = 640 };

typedef struct file {
    const char *name;
    const char *parts[PARTS_MAX]; /* one after another; NULL after the last */
    size_t lengths[PARTS_MAX];
} file;

/* Compiles files[0], which may include the others. */
typedef struct job {
    const char *name; /* for messages */
    bool base;        /* with the flags of the main program */
    bool plain;       /* without optimization */
    file files[FILES_MAX];
    char key[NAS_SHA256_HEX], path[512];
    bool found;
} job;

typedef struct build {
    const nas_compile_options *options;
    const nas__sources *sources;
    nas__toolchain toolchain, base;
    nas_buf driver;
    size_t n_jobs; /* units, main program, peak loop, driver */
    job *jobs;
    size_t n_missing, *missing;
    char key[NAS_SHA256_HEX], work[512];
} build;

static file text_file(const char *name, const char *first, size_t length) {
    return (file){.name = name, .parts = {first}, .lengths = {length}};
}

static void add_part(file *f, const char *part, size_t length) {
    int k = 0;
    while (f->parts[k] != NULL)
        k++;
    f->parts[k] = part;
    f->lengths[k] = length;
}

/* By their digests, parts do not run into each other. */
static void hash_part(nas_sha256 *h, const void *part, size_t len) {
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_bytes(part, len, digest);
    nas_sha256_update(h, digest, sizeof digest);
}

static void hash_text(nas_sha256 *h, const char *text) {
    hash_part(h, text, strlen(text));
}

static void end_hash(nas_sha256 *h, char key[NAS_SHA256_HEX]) {
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_final(h, digest);
    nas_hex(digest, sizeof digest, key);
}

static void make_key(const build *b, job *j) {
    const nas__toolchain *t = j->base ? &b->base : &b->toolchain;
    nas_sha256 h;
    nas_sha256_init(&h);
    for (int i = 0; i < FILES_MAX && j->files[i].name != NULL; i++) {
        const file *f = &j->files[i];
        hash_text(&h, f->name);
        for (int k = 0; k < PARTS_MAX && f->parts[k] != NULL; k++)
            hash_part(&h, f->parts[k], f->lengths[k]);
    }
    hash_text(&h, t->compiler);
    hash_text(&h, t->version);
    hash_text(&h, t->flags);
    hash_text(&h, j->plain ? "-O0" : "");
    end_hash(&h, j->key);
}

/* A work file: no need for atomicity, the folder is ours. */
static nas_status write_work(nas_ctx *ctx, const char *folder, const file *f) {
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, f->name);
    FILE *out = fopen(path, "wb");
    if (out == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: cannot be written", path);
    bool wrote = true;
    for (int k = 0; k < PARTS_MAX && f->parts[k] != NULL; k++)
        wrote = fwrite(f->parts[k], 1, f->lengths[k], out) == f->lengths[k] && wrote;
    if (fclose(out) != 0 || !wrote) {
        return nas_fail(ctx, NAS_ERR_IO, "%s: disk full? not written; free some space", path);
    }
    return NAS_OK;
}

static nas_status compile_job(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    build *b = arg;
    const job *j = &b->jobs[b->missing[index]];
    char folder[PATH_BYTES - 32], made[PATH_BYTES], sum[NAS_SHA256_HEX];
    (void)snprintf(folder, sizeof folder, "%s/%zu", b->work, index);
    nas_status status = nas_mkdirs(ctx, folder);
    for (int i = 0; i < FILES_MAX && j->files[i].name != NULL && status == NAS_OK; i++)
        status = write_work(ctx, folder, &j->files[i]);
    const char *args[] = {"-c", j->files[0].name, "-o", "object.o", j->plain ? "-O0" : NULL, NULL};
    if (status == NAS_OK) status = nas__cc(ctx, j->base ? &b->base : &b->toolchain, folder, args);
    if (status != NAS_OK) return nas_wrap(ctx, status, "%s", j->name);
    (void)snprintf(made, sizeof made, "%s/object.o", folder);
    return nas__cache_put(ctx, made, j->path, 0444, false, sum);
}

/* ---- the executable ---------------------------------------------------------------------------------------------- */

/* Machine code goes past the C compiler: the assembler takes the file as it is. */
static const char code_begin[] = "\n__asm__(\".pushsection .text\\n.p2align 5\\n.type ",
                  code_label[] = "_code, %function\\n",
                  code_end[] = "_code:\\n.incbin \\\"code.bin\\\"\\n.popsection\\n\");\n";

static void unit_job(const nas__sources *s, const nas__unit *unit, job *j) {
    const nas_buf *code = &unit->code.bytes;
    j->name = unit->name;
    j->files[0] = text_file("unit.c", object_head, sizeof object_head - 1);
    add_part(&j->files[0], s->prelude.data, s->prelude.len);
    add_part(&j->files[0], unit->text.data, unit->text.len);
    if (code->len == 0) return;
    add_part(&j->files[0], code_begin, sizeof code_begin - 1);
    add_part(&j->files[0], unit->name, strlen(unit->name));
    add_part(&j->files[0], code_label, sizeof code_label - 1);
    add_part(&j->files[0], unit->name, strlen(unit->name));
    add_part(&j->files[0], code_end, sizeof code_end - 1);
    j->files[1] = text_file("code.bin", code->data, code->len);
}

/* A file of compiler/rt/ and its name beside the compiler; a list ends with NULL. */
typedef struct rt_name {
    const char *name, *file;
} rt_name;

static const rt_name driver_files[] = {{"model_facts.h", "model_facts.h"}, {NULL, NULL}},
                     peak_files[] = {{"peak.c", "peak.c"}, {NULL, NULL}},
                     main_files[] = {{"bench_main.c", "bench_main.c"},
                                     {"bench_state.h", "bench_state.h"},
                                     {"bench_batches.h", "bench_batches.h"},
                                     {"bench_document.h", "bench_document.h"},
                                     {"conditions.h", "conditions.h"},
                                     {"cpu_check.h", "cpu_check.h"},
                                     {"cpus.h", "cpus.h"},
                                     {"model.h", "model_facts.h"},
                                     {"model_facts.h", "model_facts.h"},
                                     {"npy.h", "npy.h"},
                                     {"ranks.h", "ranks.h"},
                                     {NULL, NULL}};

/* Behind the files that the job has. */
static nas_status add_rt_files(nas_ctx *ctx, job *j, const rt_name *list) {
    int n = 0;
    while (j->files[n].name != NULL)
        n++;
    for (; list->name != NULL; list++) {
        const char *text = nas__rt_file(list->file);
        if (text == NULL || n == FILES_MAX)
            return nas_fail(ctx, NAS_ERR_INTERNAL, "compiler/rt/%s is not embedded in this build",
                            list->file);
        j->files[n++] = text_file(list->name, text, strlen(text));
    }
    return NAS_OK;
}

static const char half_peak[] = "#define PEAK_HALF\n";

static void precede(file *f, const char *text) {
    add_part(f, f->parts[0], f->lengths[0]);
    f->parts[0] = text;
    f->lengths[0] = strlen(text);
}

static nas_status list_jobs(nas_ctx *ctx, build *b) {
    const nas__sources *s = b->sources;
    b->jobs = nas_alloc_array(ctx, s->n_units + 3, sizeof *b->jobs);
    b->missing = nas_alloc_array(ctx, s->n_units + 3, sizeof *b->missing);
    if (b->jobs == NULL || b->missing == NULL) return NAS_ERR_NOMEM;
    driver_text(s, &b->driver);
    nas_status status = nas_buf_status(ctx, &b->driver);
    if (status != NAS_OK) return status;
    /* The driver first: it is always missing, and takes about as long as a unit. The main program is outside of what it
     * times: the fastest compile wins. It has to start on any processor of the architecture to say what is missing. */
    job *driver = &b->jobs[b->n_jobs++], *main_program = &b->jobs[b->n_jobs++],
        *peak = &b->jobs[b->n_jobs++];
    *driver = (job){.name = "model.c",
                    .plain = true,
                    .files = {text_file("model.c", b->driver.data, b->driver.len),
                              text_file("model.h", s->header.data, s->header.len)}};
    *main_program = (job){.name = "bench_main.c", .base = true, .plain = true};
    *peak =
        (job){.name = "peak.c"}; /* has the flags of the model, and counts what it computes in */
    status = add_rt_files(ctx, driver, driver_files);
    if (status == NAS_OK) status = add_rt_files(ctx, main_program, main_files);
    if (status == NAS_OK) status = add_rt_files(ctx, peak, peak_files);
    if (status == NAS_OK && b->options->dtype == NAS_DTYPE_FP16)
        precede(&peak->files[0], half_peak);
    for (size_t i = 0; i < s->n_units; i++)
        unit_job(s, &s->units[i], &b->jobs[b->n_jobs++]);
    return status;
}

static nas_status name_objects(nas_ctx *ctx, build *b) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < b->n_jobs && status == NAS_OK; i++) {
        job *j = &b->jobs[i];
        make_key(b, j);
        status = nas__cache_path(ctx, b->options->cache_dir, j->key, ".o", sizeof j->path, j->path);
    }
    return status;
}

static void make_build_key(build *b) {
    nas_sha256 h;
    nas_sha256_init(&h);
    for (size_t i = 0; i < b->n_jobs; i++)
        nas_sha256_update(&h, b->jobs[i].key, NAS_SHA256_HEX - 1);
    hash_part(&h, b->sources->weights, b->sources->weight_bytes);
    end_hash(&h, b->key);
}

/* Weights go through the assembler unread: a C parser would take most of the time of a candidate. */
static nas_status link_program(nas_ctx *ctx, build *b) {
    static const char weights_s[] =
        "    .section .rodata\n    .globl model_weights\n    .balign 64\n"
        "    .type model_weights, %object\nmodel_weights:\n    .incbin \"weights.bin\"\n"
        "    .size model_weights, . - model_weights\n"
        "    .section .note.GNU-stack,\"\",%progbits\n";
    const file s = text_file("weights.s", weights_s, sizeof weights_s - 1);
    const file bin = text_file("weights.bin", b->sources->weights, b->sources->weight_bytes);
    nas_buf list = {0}; /* a response file: any number of objects */
    for (size_t i = 0; i < b->n_jobs; i++)
        nas_buf_printf(&list, "../%.2s/%s.o\n", b->jobs[i].key, b->jobs[i].key);
    const file objects = text_file("objects", list.data, list.len);
    nas_status status = nas_buf_status(ctx, &list);
    if (status == NAS_OK) status = write_work(ctx, b->work, &s);
    if (status == NAS_OK) status = write_work(ctx, b->work, &bin);
    if (status == NAS_OK) status = write_work(ctx, b->work, &objects);
    nas_buf_deinit(&list);
    const char *args[] = {"@objects", "weights.s", "-o", "model", NULL, NULL};
    if (!b->options->target->runs_here)
        args[4] = "-static"; /* a device need not have our C library */
    return status == NAS_OK ? nas__cc(ctx, &b->base, b->work, args) : status;
}

static nas_status compile_missing(nas_ctx *ctx, build *b) {
    char sum[NAS_SHA256_HEX];
    for (size_t i = 0; i < b->n_jobs; i++) {
        if (!nas__cache_find(b->jobs[i].path, sum)) b->missing[b->n_missing++] = i;
    }
    return nas_parallel(ctx, nas_cpu_count(), b->n_missing, compile_job, b);
}

/* Everything that needs the work folder: one place to clean it up. */
static nas_status build_into(nas_ctx *ctx, build *b, const char *path, char sum[NAS_SHA256_HEX]) {
    nas_status status = nas__cache_work_dir(ctx, b->options->cache_dir, sizeof b->work, b->work);
    if (status != NAS_OK) return status;
    status = compile_missing(ctx, b);
    if (status == NAS_OK) status = link_program(ctx, b);
    if (status == NAS_OK) {
        char made[PATH_BYTES];
        (void)snprintf(made, sizeof made, "%s/model", b->work);
        status = nas__cache_put(ctx, made, path, 0555, true, sum);
    }
    nas_ctx *quiet = nas_ctx_child(ctx); /* keeps the message of a failure above */
    if (quiet != NULL) (void)nas_remove_tree(quiet, b->work);
    nas_ctx_free(quiet);
    return status;
}

static nas_status find_or_build(nas_ctx *ctx, build *b, nas_artifact *a) {
    nas_status status =
        nas__cache_path(ctx, b->options->cache_dir, b->key, ".model", sizeof a->path, a->path);
    if (status != NAS_OK) return status;
    a->from_cache = nas__cache_find(a->path, a->sha256);
    if (!a->from_cache) {
        const int64_t start = nas_now_ns();
        status = build_into(ctx, b, a->path, a->sha256);
        a->compile_s = (double)(nas_now_ns() - start) * 1e-9;
    }
    struct stat info;
    if (status == NAS_OK && stat(a->path, &info) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s vanished from the cache", a->path);
    }
    if (status == NAS_OK) a->size_bytes = (uint64_t)info.st_size;
    return status;
}

nas_status nas__build_program(nas_ctx *ctx, const nas_compile_options *options,
                              const nas__sources *sources, nas_artifact *out) {
    build b = {.options = options, .sources = sources};
    nas_artifact artifact = {.arena_bytes = sources->arena_bytes,
                             .weight_bytes = sources->weight_bytes};
    nas_status status = nas__sources_status(ctx, sources);
    if (status == NAS_OK) status = nas__toolchain_open(ctx, options, &b.toolchain);
    if (status == NAS_OK) {
        b.base = b.toolchain;
        (void)snprintf(b.base.flags, sizeof b.base.flags, "%s", b.toolchain.base_flags);
        status = list_jobs(ctx, &b);
    }
    if (status == NAS_OK) status = name_objects(ctx, &b);
    if (status == NAS_OK) {
        make_build_key(&b);
        status = find_or_build(ctx, &b, &artifact);
    }
    if (status == NAS_OK) {
        memcpy(artifact.source_sha256, b.key, sizeof artifact.source_sha256);
        (void)snprintf(artifact.target, sizeof artifact.target, "%s", options->target->name);
        (void)snprintf(artifact.compiler, sizeof artifact.compiler, "%s", b.toolchain.version);
        (void)snprintf(artifact.flags, sizeof artifact.flags, "%s", b.toolchain.flags);
        *out = artifact;
    }
    nas_buf_deinit(&b.driver);
    nas_free(b.jobs);
    nas_free(b.missing);
    return status;
}

/* ---- the size of the code ---------------------------------------------------------------------------------------- */

/* Of the list of an executable: the driver, as a bundle has it, and the units. */
static void keep_code(build *b) {
    size_t n = 1;
    b->jobs[0].plain = false;
    for (size_t i = b->n_jobs - b->sources->n_units; i < b->n_jobs; i++)
        b->jobs[n++] = b->jobs[i];
    b->n_jobs = n;
}

static void note_size(const char *name, uint64_t bytes, nas__code_size *out) {
    int32_t at = out->n_largest;
    while (at > 0 && out->largest_bytes[at - 1] < bytes)
        at--;
    if (at == NAS__CODE_LARGEST) return;
    if (out->n_largest < NAS__CODE_LARGEST) out->n_largest++;
    for (int32_t i = out->n_largest - 1; i > at; i--) {
        out->largest_bytes[i] = out->largest_bytes[i - 1];
        memcpy(out->largest[i], out->largest[i - 1], sizeof out->largest[i]);
    }
    out->largest_bytes[at] = bytes;
    (void)snprintf(out->largest[at], sizeof out->largest[at], "%s", name);
}

/* Compiles the jobs that are missing and adds up what they make. */
static nas_status build_size(nas_ctx *ctx, build *b, nas__code_size *size) {
    nas_status status = name_objects(ctx, b);
    if (status == NAS_OK)
        status = nas__cache_work_dir(ctx, b->options->cache_dir, sizeof b->work, b->work);
    if (status != NAS_OK) return status;
    status = compile_missing(ctx, b);
    nas_ctx *quiet = nas_ctx_child(ctx); /* keeps the message of a failure above */
    if (quiet != NULL) (void)nas_remove_tree(quiet, b->work);
    nas_ctx_free(quiet);
    for (size_t i = 0; i < b->n_jobs && status == NAS_OK; i++) {
        uint64_t bytes = 0;
        status = nas__code_bytes(ctx, b->jobs[i].path, &bytes);
        size->bytes += bytes;
        note_size(b->jobs[i].name, bytes, size);
    }
    return status;
}

nas_status nas__build_code(nas_ctx *ctx, const nas_compile_options *options,
                           const nas__sources *sources, bool whole, nas__code_size *out) {
    build b = {.options = options, .sources = sources};
    nas__code_size size = {0};
    nas_buf text = {0};
    nas_status status = nas__sources_status(ctx, sources);
    if (status == NAS_OK) status = nas__toolchain_open(ctx, options, &b.toolchain);
    if (status == NAS_OK) status = list_jobs(ctx, &b);
    if (status == NAS_OK && whole) {
        nas__sources_text(sources, &text);
        status = nas_buf_status(ctx, &text);
        b.n_jobs = 1;
        b.jobs[0] =
            (job){.name = "model.c",
                  .files = {text_file("model.c", text.data, text.len),
                            text_file("model.h", sources->header.data, sources->header.len)}};
    } else if (status == NAS_OK) {
        keep_code(&b);
    }
    if (status == NAS_OK) status = build_size(ctx, &b, &size);
    if (status == NAS_OK) *out = size;
    nas_buf_deinit(&text);
    nas_buf_deinit(&b.driver);
    nas_free(b.jobs);
    nas_free(b.missing);
    return status;
}
