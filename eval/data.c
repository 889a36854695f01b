/* data.c - the data set: finds or generates pictures, drops the unreadable and the repeated, splits, describes.
 *
 * Pictures are loaded in parallel into one array in a fixed order; everything after that (log lines, repeats, held-out
 * choice, hash) goes through the array in order, so nothing depends on the number of threads. A picture is known by
 * the SHA-256 of its HR pixels. */
#include "eval/data_internal.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IMAGES_MAX = 1000000 };

/* One picture while the set is being built. */
typedef struct item {
    const nas__sr_source *source; /* NULL: leaf image number `leaf` */
    uint64_t leaf;
    nas_split split;
    bool usable;
    char why[256]; /* not usable: the reason */
    nas_sr_pair pair;
    uint8_t hr_hash[NAS_SHA256_BYTES], lr_hash[NAS_SHA256_BYTES];
    uint8_t key[NAS_SHA256_BYTES]; /* orders the seeded choices */
} item;

struct nas_sr_data {
    int32_t scale;
    nas_sr_pair *pairs; /* [n], all splits one after the other */
    size_t n;
    size_t first[NAS_SPLIT_COUNT + 1]; /* split s is pairs[first[s]] .. pairs[first[s + 1] - 1] */
    size_t skipped;
    nas_buf text;
    char hash[NAS_SHA256_HEX];
};

/* What is known while opening. */
typedef struct opening {
    const nas_sr_data_options *options;
    const char *dirs[NAS_SPLIT_COUNT]; /* NULL = none */
    int32_t leaves[NAS_SPLIT_COUNT];   /* 0 where the split comes from a folder */
    nas__sr_sources sources[NAS_SPLIT_COUNT];
    item *items;
    size_t n;
    size_t repeated;
    atomic_ullong bytes;
} opening;

static const char *const split_names[NAS_SPLIT_COUNT] = {"train", "select", "report"};

nas_sr_data_options nas_sr_data_options_default(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const uint64_t memory =
        pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_C(1) << 31;
    return (nas_sr_data_options){
        .scale = 2,
        .seed = 1,
        .select_fraction = 0.1,
        .select_max = 8,
        .report_max = 8,
        .leaves_train = 160,
        .leaves_select = 8,
        .leaves_report = 8,
        .leaves_height = 192,
        .leaves_width = 192,
        .threads = nas_cpu_count(),
        .memory_max_bytes = memory / 2,
    };
}

/* ---- what to open -------------------------------------------------------------------------------------------- */

static const char *dir_or_null(const char *dir) {
    return dir == NULL || dir[0] == '\0' ? NULL : dir;
}

static nas_status check_int(nas_ctx *ctx, const char *what, int64_t value, int64_t lo, int64_t hi) {
    if (value >= lo && value <= hi) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "data: %s = %" PRId64 ", must be %" PRId64 "..%" PRId64,
                    what, value, lo, hi);
}

static nas_status check_options(nas_ctx *ctx, const nas_sr_data_options *o, const opening *open) {
    nas_status status = check_int(ctx, "scale", o->scale, 2, 4);
    if (status == NAS_OK) status = check_int(ctx, "threads", o->threads, 1, 256);
    if (status == NAS_OK) status = check_int(ctx, "select_max", o->select_max, 1, IMAGES_MAX);
    if (status == NAS_OK) status = check_int(ctx, "report_max", o->report_max, 1, IMAGES_MAX);
    if (status == NAS_OK && !(o->select_fraction > 0.0 && o->select_fraction <= 0.5)) {
        status = nas_fail(ctx, NAS_ERR_INVALID, "data: select_fraction = %g, must be in (0, 0.5]",
                          o->select_fraction);
    }
    if (status == NAS_OK && o->memory_max_bytes == 0) {
        status =
            nas_fail(ctx, NAS_ERR_INVALID,
                     "data: memory_max_bytes = 0, must be >= 1 (start from the default options)");
    }
    bool any_leaves = false;
    for (int s = 0; s < NAS_SPLIT_COUNT && status == NAS_OK; s++) {
        if (open->leaves[s] == 0 && (open->dirs[s] != NULL || open->dirs[0] != NULL)) continue;
        char what[32];
        (void)snprintf(what, sizeof what, "leaves_%s", split_names[s]);
        status = check_int(ctx, what, open->leaves[s], 1, IMAGES_MAX);
        any_leaves = true;
    }
    const int32_t least = 12 + 2 * o->scale + o->scale;
    if (status == NAS_OK && any_leaves) {
        status = check_int(ctx, "leaves_height", o->leaves_height, least, NAS_IMAGE_SIDE_MAX);
    }
    if (status == NAS_OK && any_leaves) {
        status = check_int(ctx, "leaves_width", o->leaves_width, least, NAS_IMAGE_SIDE_MAX);
    }
    return status;
}

static nas_status plan(nas_ctx *ctx, opening *open) {
    const nas_sr_data_options *o = open->options;
    open->dirs[NAS_SPLIT_TRAIN] = dir_or_null(o->train_dir);
    open->dirs[NAS_SPLIT_SELECT] = dir_or_null(o->select_dir);
    open->dirs[NAS_SPLIT_REPORT] = dir_or_null(o->report_dir);
    if (open->dirs[NAS_SPLIT_TRAIN] == NULL) {
        const int32_t wanted[NAS_SPLIT_COUNT] = {o->leaves_train, o->leaves_select,
                                                 o->leaves_report};
        for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
            if (open->dirs[s] == NULL) open->leaves[s] = wanted[s];
        }
    }
    return check_options(ctx, o, open);
}

/* make_items - scans the folders and lists all pictures: by split, then by path. */
static nas_status make_items(nas_ctx *ctx, opening *open) {
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        open->n += (size_t)open->leaves[s];
        if (open->dirs[s] == NULL) continue;
        const nas_status status =
            nas__sr_scan(ctx, open->dirs[s], open->options->scale, &open->sources[s]);
        if (status != NAS_OK) return nas_wrap(ctx, status, "%s data", split_names[s]);
        open->n += open->sources[s].n;
    }
    open->items = nas_alloc_array(ctx, open->n, sizeof *open->items);
    if (open->items == NULL) return NAS_ERR_NOMEM;
    item *next = open->items;
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        for (size_t i = 0; i < open->sources[s].n; i++) {
            *next++ = (item){.source = &open->sources[s].items[i], .split = (nas_split)s};
        }
        for (int32_t i = 0; i < open->leaves[s]; i++) {
            *next++ = (item){.leaf = ((uint64_t)s << 32) + (uint64_t)i, .split = (nas_split)s};
        }
    }
    return NAS_OK;
}

/* ---- loading ------------------------------------------------------------------------------------------------- */

/* hash_image - over extents and 8-bit pixels. */
static void hash_image(const nas_image *image, uint8_t out[NAS_SHA256_BYTES]) {
    nas_sha256 h;
    nas_sha256_init(&h);
    char head[48];
    const int len = snprintf(head, sizeof head, "%" PRId32 "x%" PRId32 "x%" PRId32 ":", image->c,
                             image->h, image->w);
    nas_sha256_update(&h, head, (size_t)len);
    const size_t n = (size_t)image->c * (size_t)image->h * (size_t)image->w;
    uint8_t chunk[4096];
    for (size_t at = 0; at < n;) {
        size_t k = 0;
        for (; k < sizeof chunk && at < n; k++, at++) {
            chunk[k] = (uint8_t)(image->data[at] * 255.0f + 0.5f);
        }
        nas_sha256_update(&h, chunk, k);
    }
    nas_sha256_final(&h, out);
}

static void make_key(uint64_t seed, item *it) {
    uint8_t bytes[8 + NAS_SHA256_BYTES];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(seed >> (8 * i));
    memcpy(bytes + 8, it->hr_hash, NAS_SHA256_BYTES);
    nas_sha256_bytes(bytes, sizeof bytes, it->key);
}

static nas_status generate(nas_ctx *ctx, const nas_sr_data_options *o, item *it) {
    nas_image hr = {0};
    nas_status status =
        nas_dead_leaves(ctx, o->seed, it->leaf, o->leaves_height / o->scale * o->scale,
                        o->leaves_width / o->scale * o->scale, &hr);
    if (status == NAS_OK) status = nas__sr_pair_make(ctx, &hr, o->scale, &it->pair);
    if (status != NAS_OK) return status;
    (void)snprintf(it->pair.name, sizeof it->pair.name, "leaves-%s-%04" PRIu64,
                   split_names[it->split], it->leaf & UINT32_MAX);
    return NAS_OK;
}

static uint64_t pair_bytes(const nas_sr_pair *pair) {
    return sizeof(float) * 3 *
           ((uint64_t)pair->hr.h * (uint64_t)pair->hr.w +
            (uint64_t)pair->lr.h * (uint64_t)pair->lr.w);
}

static nas_status count_bytes(nas_ctx *ctx, opening *open, const item *it) {
    const uint64_t mine = pair_bytes(&it->pair);
    const uint64_t limit = open->options->memory_max_bytes;
    if (atomic_fetch_add(&open->bytes, mine) + mine <= limit) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE,
                    "data: the %zu images found need more than %" PRIu64
                    " MiB of memory: use fewer or smaller images",
                    open->n, limit >> 20);
}

static nas_status load_item(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    opening *open = arg;
    item *it = &open->items[index];
    nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    if (it->source == NULL) {
        status = generate(ctx, open->options, it);
    } else {
        status = nas__sr_pair_load(ctx, it->source, open->options->scale, &it->pair);
    }
    if (status == NAS_ERR_NOMEM || status == NAS_ERR_CANCELLED) return status;
    if (status != NAS_OK) {
        (void)snprintf(it->why, sizeof it->why, "%s", nas_ctx_message(ctx));
        return NAS_OK;
    }
    it->usable = true;
    hash_image(&it->pair.hr, it->hr_hash);
    hash_image(&it->pair.lr, it->lr_hash);
    make_key(open->options->seed, it);
    return count_bytes(ctx, open, it);
}

/* ---- repeats and splits -------------------------------------------------------------------------------------- */

static void drop(item *it) {
    it->usable = false;
    nas__sr_pair_deinit(&it->pair);
}

/* Equal pictures side by side, the one to keep first: REPORT before SELECT before TRAIN, then array order. */
static int by_picture(const void *a, const void *b) {
    const item *x = *(item *const *)a, *y = *(item *const *)b;
    const int order = memcmp(x->hr_hash, y->hr_hash, NAS_SHA256_BYTES);
    if (order != 0) return order;
    if (x->split != y->split) return x->split > y->split ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int by_key(const void *a, const void *b) {
    return memcmp((*(item *const *)a)->key, (*(item *const *)b)->key, NAS_SHA256_BYTES);
}

/* usable_items - pointers to the usable items of `split` (NAS_SPLIT_COUNT = of all), in array order. */
static size_t usable_items(opening *open, nas_split split, item **out) {
    size_t n = 0;
    for (size_t i = 0; i < open->n; i++) {
        item *it = &open->items[i];
        if (it->usable && (split == NAS_SPLIT_COUNT || it->split == split)) out[n++] = it;
    }
    return n;
}

static void drop_repeats(nas_ctx *ctx, opening *open, item **scratch) {
    const size_t n = usable_items(open, NAS_SPLIT_COUNT, scratch);
    if (n > 1) qsort(scratch, n, sizeof *scratch, by_picture);
    const item *kept = NULL;
    for (size_t i = 0; i < n; i++) {
        item *it = scratch[i];
        if (kept == NULL || memcmp(kept->hr_hash, it->hr_hash, NAS_SHA256_BYTES) != 0) {
            kept = it;
            continue;
        }
        nas_log(ctx, NAS_LOG_INFO, "data repeated image=%s split=%s same_as=%s split=%s",
                it->pair.name, split_names[it->split], kept->pair.name, split_names[kept->split]);
        drop(it);
        open->repeated++;
    }
}

/* hold_out - moves a seeded choice of TRAIN into `split`. */
static void hold_out(opening *open, nas_split split, size_t total, size_t most, item **scratch) {
    const size_t n = usable_items(open, NAS_SPLIT_TRAIN, scratch);
    const double share = floor(open->options->select_fraction * (double)total + 0.5);
    size_t wanted = share < 1.0 ? 1 : (size_t)share;
    if (wanted > most) wanted = most;
    if (n > 1) qsort(scratch, n, sizeof *scratch, by_key);
    for (size_t i = 0; i < n && i < wanted; i++)
        scratch[i]->split = split;
}

/* keep_at_most - a seeded choice of a split that has more images than wanted. */
static void keep_at_most(opening *open, nas_split split, size_t most, item **scratch) {
    const size_t n = usable_items(open, split, scratch);
    if (n <= most || open->dirs[split] == NULL) return;
    qsort(scratch, n, sizeof *scratch, by_key);
    for (size_t i = most; i < n; i++)
        drop(scratch[i]);
}

static nas_status check_splits(nas_ctx *ctx, opening *open, item **scratch, size_t skipped) {
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        if (usable_items(open, (nas_split)s, scratch) > 0) continue;
        const char *dir = open->dirs[s] != NULL ? open->dirs[s] : open->dirs[NAS_SPLIT_TRAIN];
        return nas_fail(
            ctx, NAS_ERR_NOTFOUND,
            "data: no image is left for %s from %s (%zu found, %zu skipped, %zu repeated%s)"
            ": add images, or name folders for train, select and report",
            split_names[s], dir == NULL ? "dead leaves" : dir, open->n, skipped, open->repeated,
            s == NAS_SPLIT_TRAIN ? ", the others are held out" : "");
    }
    return NAS_OK;
}

static nas_status split_items(nas_ctx *ctx, opening *open, size_t skipped) {
    item **scratch = nas_alloc_array(ctx, open->n, sizeof *scratch);
    if (scratch == NULL) return NAS_ERR_NOMEM;
    drop_repeats(ctx, open, scratch);
    const size_t most[NAS_SPLIT_COUNT] = {
        [NAS_SPLIT_SELECT] = (size_t)open->options->select_max,
        [NAS_SPLIT_REPORT] = (size_t)open->options->report_max,
    };
    const size_t total = usable_items(open, NAS_SPLIT_TRAIN, scratch);
    for (int s = NAS_SPLIT_SELECT; s <= NAS_SPLIT_REPORT; s++) {
        if (open->dirs[NAS_SPLIT_TRAIN] != NULL && open->dirs[s] == NULL) {
            hold_out(open, (nas_split)s, total, most[s], scratch);
        }
        keep_at_most(open, (nas_split)s, most[s], scratch);
    }
    const nas_status status = check_splits(ctx, open, scratch, skipped);
    nas_free(scratch);
    return status;
}

/* ---- the finished set ---------------------------------------------------------------------------------------- */

/* take_pairs - moves the usable pairs into the set, split by split, and hashes them. */
static nas_status take_pairs(nas_ctx *ctx, opening *open, nas_sr_data *data) {
    for (size_t i = 0; i < open->n; i++)
        data->n += open->items[i].usable ? 1 : 0;
    data->pairs = nas_alloc_array(ctx, data->n, sizeof *data->pairs);
    if (data->pairs == NULL) return NAS_ERR_NOMEM;
    nas_sha256 h;
    nas_sha256_init(&h);
    size_t next = 0;
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        data->first[s] = next;
        for (size_t i = 0; i < open->n; i++) {
            item *it = &open->items[i];
            if (!it->usable || it->split != (nas_split)s) continue;
            data->pairs[next++] = it->pair;
            it->pair = (nas_sr_pair){0};
            const uint8_t head[2] = {(uint8_t)s, (uint8_t)data->scale};
            nas_sha256_update(&h, head, sizeof head);
            nas_sha256_update(&h, it->hr_hash, sizeof it->hr_hash);
            nas_sha256_update(&h, it->lr_hash, sizeof it->lr_hash);
        }
    }
    data->first[NAS_SPLIT_COUNT] = next;
    uint8_t sum[NAS_SHA256_BYTES];
    nas_sha256_final(&h, sum);
    nas_hex(sum, sizeof sum, data->hash);
    return NAS_OK;
}

/* describe - before take_pairs: needs the sources of the items. */
static nas_status describe(nas_ctx *ctx, opening *open, nas_sr_data *data) {
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        size_t n = 0, stored = 0;
        for (size_t i = 0; i < open->n; i++) {
            const item *it = &open->items[i];
            if (!it->usable || it->split != (nas_split)s) continue;
            n++;
            stored += it->source != NULL && it->source->lr != NULL ? 1 : 0;
        }
        nas_buf_printf(&data->text, "%s%s %zu", s == 0 ? "" : ", ", split_names[s], n);
        if (open->leaves[s] > 0) {
            nas_buf_printf(&data->text, " dead leaves");
            if (s == 0) {
                nas_buf_printf(&data->text, " of %" PRId32 "x%" PRId32 " (seed %" PRIu64 ")",
                               open->options->leaves_width, open->options->leaves_height,
                               open->options->seed);
            }
        } else if (open->dirs[s] != NULL) {
            nas_buf_printf(&data->text, " from %s", open->dirs[s]);
        } else {
            nas_buf_printf(&data->text, " held out");
        }
        if (stored > 0) nas_buf_printf(&data->text, " (%zu with stored LR)", stored);
    }
    if (data->skipped > 0) nas_buf_printf(&data->text, "; %zu skipped", data->skipped);
    if (open->repeated > 0) nas_buf_printf(&data->text, "; %zu repeated", open->repeated);
    return nas_buf_status(ctx, &data->text);
}

static size_t log_skipped(nas_ctx *ctx, const opening *open) {
    size_t skipped = 0;
    for (int s = 0; s < NAS_SPLIT_COUNT; s++)
        skipped += open->sources[s].skipped;
    for (size_t i = 0; i < open->n; i++) {
        if (open->items[i].usable) continue;
        nas_log(ctx, NAS_LOG_WARN, "data skipped %s", open->items[i].why);
        skipped++;
    }
    return skipped;
}

static nas_status build(nas_ctx *ctx, opening *open, nas_sr_data *data) {
    nas_status status = plan(ctx, open);
    if (status == NAS_OK) status = make_items(ctx, open);
    if (status == NAS_OK) {
        status = nas_parallel(ctx, open->options->threads, open->n, load_item, open);
    }
    if (status != NAS_OK) return status;
    data->scale = open->options->scale;
    data->skipped = log_skipped(ctx, open);
    status = split_items(ctx, open, data->skipped);
    if (status == NAS_OK) status = describe(ctx, open, data);
    if (status == NAS_OK) status = take_pairs(ctx, open, data);
    return status;
}

nas_status nas_sr_data_open(nas_ctx *ctx, const nas_sr_data_options *options, nas_sr_data **out) {
    nas_sr_data *data = nas_alloc_array(ctx, 1, sizeof *data);
    if (data == NULL) return NAS_ERR_NOMEM;
    opening open = {.options = options};
    atomic_init(&open.bytes, 0);
    const nas_status status = build(ctx, &open, data);
    for (size_t i = 0; open.items != NULL && i < open.n; i++)
        nas__sr_pair_deinit(&open.items[i].pair);
    nas_free(open.items);
    for (int s = 0; s < NAS_SPLIT_COUNT; s++)
        nas__sr_sources_deinit(&open.sources[s]);
    if (status != NAS_OK) {
        nas_sr_data_close(data);
        return status;
    }
    *out = data;
    return NAS_OK;
}

void nas_sr_data_close(nas_sr_data *data) {
    if (data == NULL) return;
    for (size_t i = 0; data->pairs != NULL && i < data->n; i++)
        nas__sr_pair_deinit(&data->pairs[i]);
    nas_free(data->pairs);
    nas_buf_deinit(&data->text);
    nas_free(data);
}

size_t nas_sr_data_count(const nas_sr_data *data, nas_split split) {
    if ((unsigned)split >= NAS_SPLIT_COUNT) return 0;
    return data->first[split + 1] - data->first[split];
}

const nas_sr_pair *nas_sr_data_pair(const nas_sr_data *data, nas_split split, size_t index) {
    if (index >= nas_sr_data_count(data, split)) return NULL;
    return &data->pairs[data->first[split] + index];
}

size_t nas_sr_data_skipped(const nas_sr_data *data) {
    return data->skipped;
}

const char *nas_sr_data_describe(const nas_sr_data *data) {
    return data->text.data;
}

const char *nas_sr_data_hash(const nas_sr_data *data) {
    return data->hash;
}

int32_t nas__sr_data_scale(const nas_sr_data *data) {
    return data->scale;
}
