/* class_data.c - labelled images: which of them teach, score and report. */
#include "eval/class_internal.h"
#include "eval/exec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nas_class_data {
    nas__class_set set;    /* from path, or glyphs */
    nas__class_set report; /* from report_path, else empty */
    nas_class_data_options options;
    int32_t classes;
    size_t *order[NAS_CLASS_SPLIT_COUNT]; /* image numbers within their set */
    size_t count[NAS_CLASS_SPLIT_COUNT];
    char hash[NAS_CLASS_SPLIT_COUNT][NAS_SHA256_HEX];
    char description[512];
};

nas_class_data_options nas_class_data_options_default(void) {
    nas_class_data_options o = {.kind = "glyphs",
                                .path = "",
                                .report_path = "",
                                .h = 32,
                                .w = 32,
                                .c = 3,
                                .reward_max = 1000,
                                .report_max = 1000,
                                .tune_max = 1000000,
                                .glyphs = 8000,
                                .seed = 1};
    for (int i = 0; i < NAS_CLASS_CHANNELS_MAX; i++) {
        o.mean[i] = 0.5F;
        o.deviation[i] = 0.25F;
    }
    return o;
}

/* ---- order -------------------------------------------------------------------------------------------------------- */

typedef struct keyed {
    uint8_t key[NAS_SHA256_BYTES];
    size_t index;
} keyed;

static int by_key(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    const int order = memcmp(x->key, y->key, sizeof x->key);
    return order != 0 ? order : x->index < y->index ? -1 : x->index > y->index;
}

/* Images by a seeded hash of their pixels; of equal ones the first stays. */
static nas_status ordered(nas_ctx *ctx, const nas__class_set *s, uint64_t seed, keyed **out,
                          size_t *n_out) {
    keyed *list = nas_alloc_array(ctx, s->n, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    const size_t bytes = nas__class_image_bytes(s);
    for (size_t i = 0; i < s->n; i++) {
        nas_sha256 h;
        nas_sha256_init(&h);
        nas_sha256_update(&h, &seed, sizeof seed);
        nas_sha256_update(&h, s->pixels + i * bytes, bytes);
        nas_sha256_final(&h, list[i].key);
        list[i].index = i;
    }
    if (s->n > 1) qsort(list, s->n, sizeof *list, by_key);
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (kept > 0 && memcmp(list[kept - 1].key, list[i].key, sizeof list[i].key) == 0) continue;
        list[kept++] = list[i];
    }
    *out = list;
    *n_out = kept;
    return NAS_OK;
}

static bool has_key(const keyed *list, size_t n, const keyed *k) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const int order = memcmp(list[mid].key, k->key, sizeof k->key);
        if (order == 0) return true;
        if (order < 0) lo = mid + 1;
        if (order > 0) hi = mid;
    }
    return false;
}

static nas_status take(nas_ctx *ctx, nas_class_data *d, nas_class_split split, const keyed *list,
                       size_t n, size_t max) {
    d->count[split] = n < max ? n : max;
    d->order[split] = nas_alloc_array(ctx, d->count[split], sizeof *d->order[split]);
    if (d->order[split] == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < d->count[split]; i++)
        d->order[split][i] = list[i].index;
    return NAS_OK;
}

/* REWARD, then REPORT, then TUNE off the hashed order; with a report set, its pictures leave the others. */
static nas_status split_up(nas_ctx *ctx, nas_class_data *d) {
    const nas_class_data_options *o = &d->options;
    keyed *all = NULL, *held = NULL;
    size_t n = 0, n_held = 0;
    nas_status status = ordered(ctx, &d->set, o->seed, &all, &n);
    if (status == NAS_OK && d->report.n > 0) {
        status = ordered(ctx, &d->report, o->seed, &held, &n_held);
        size_t kept = 0;
        for (size_t i = 0; status == NAS_OK && i < n; i++) {
            if (!has_key(held, n_held, &all[i])) all[kept++] = all[i];
        }
        n = kept;
        if (status == NAS_OK)
            status = take(ctx, d, NAS_CLASS_REPORT, held, n_held, (size_t)o->report_max);
    }
    size_t at = 0;
    if (status == NAS_OK) status = take(ctx, d, NAS_CLASS_REWARD, all, n, (size_t)o->reward_max);
    at = d->count[NAS_CLASS_REWARD];
    if (status == NAS_OK && d->report.n == 0) {
        status = take(ctx, d, NAS_CLASS_REPORT, all + at, n - at, (size_t)o->report_max);
        at += d->count[NAS_CLASS_REPORT];
    }
    if (status == NAS_OK)
        status = take(ctx, d, NAS_CLASS_TUNE, all + at, n - at, (size_t)o->tune_max);
    nas_free(all);
    nas_free(held);
    for (int i = 0; i < NAS_CLASS_SPLIT_COUNT && status == NAS_OK; i++) {
        if (d->count[i] > 0) continue;
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "data: %zu different images leave none for %s: lower the images of the "
                          "other splits or give more data",
                          n,
                          i == NAS_CLASS_TUNE     ? "fine-tuning"
                          : i == NAS_CLASS_REWARD ? "scoring"
                                                  : "the report");
    }
    return status;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static nas_status render(nas_ctx *ctx, nas_class_data *d) {
    const nas_class_data_options *o = &d->options;
    if (o->c != 1 && o->c != 3)
        return nas_fail(ctx, NAS_ERR_SHAPE, "glyphs have 1 or 3 channels, the network reads %d",
                        (int)o->c);
    const size_t plane = (size_t)o->h * (size_t)o->w;
    uint8_t *planes = nas_alloc_array(ctx, 3 * plane, 1);
    nas_status status = planes == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (int32_t i = 0; i < o->glyphs && status == NAS_OK; i++) {
        const int32_t label = nas_glyph(o->seed, (uint64_t)i, o->h, o->w, planes);
        uint8_t *to = NULL;
        status = nas_check_cancel(ctx);
        if (status == NAS_OK) status = nas__class_add(ctx, &d->set, label, &to);
        for (size_t k = 0; status == NAS_OK && k < plane * (size_t)o->c; k++)
            to[k] = planes[k % (size_t)o->c * plane + k / (size_t)o->c];
    }
    nas_free(planes);
    return status;
}

static nas_status check_options(nas_ctx *ctx, const nas_class_data_options *o) {
    if (o->h < 1 || o->w < 1 || o->c < 1 || o->c > NAS_CLASS_CHANNELS_MAX || o->h > 4096 ||
        o->w > 4096)
        return nas_fail(ctx, NAS_ERR_INVALID, "data: images of %dx%dx%d, limit 4096x4096x%d",
                        (int)o->h, (int)o->w, (int)o->c, NAS_CLASS_CHANNELS_MAX);
    if (o->reward_max < 1 || o->report_max < 1 || o->tune_max < 1 || o->glyphs < 1)
        return nas_fail(ctx, NAS_ERR_INVALID, "data: every split needs at least one image");
    for (int32_t i = 0; i < o->c; i++) {
        if (o->deviation[i] > 0) continue;
        return nas_fail(ctx, NAS_ERR_INVALID, "data: deviation %g of channel %d must be above 0",
                        (double)o->deviation[i], (int)i);
    }
    return NAS_OK;
}

static const nas__class_set *set_of(const nas_class_data *d, nas_class_split split) {
    return split == NAS_CLASS_REPORT && d->report.n > 0 ? &d->report : &d->set;
}

static void summarise(nas_class_data *d) {
    d->classes = 0;
    for (int split = 0; split < NAS_CLASS_SPLIT_COUNT; split++) {
        const nas__class_set *s = set_of(d, (nas_class_split)split);
        const size_t bytes = nas__class_image_bytes(s);
        nas_sha256 h;
        uint8_t digest[NAS_SHA256_BYTES];
        nas_sha256_init(&h);
        for (size_t i = 0; i < d->count[split]; i++) {
            const size_t k = d->order[split][i];
            nas_sha256_update(&h, s->pixels + k * bytes, bytes);
            nas_sha256_update(&h, &s->labels[k], sizeof s->labels[k]);
            if (s->labels[k] >= d->classes) d->classes = s->labels[k] + 1;
        }
        nas_sha256_final(&h, digest);
        nas_hex(digest, sizeof digest, d->hash[split]);
    }
    const bool built_in = strcmp(d->options.kind, "glyphs") == 0;
    (void)snprintf(d->description, sizeof d->description,
                   "%s%s%s%.200s: %zu tune, %zu reward, %zu report images, %d classes",
                   built_in ? "built-in " : "", d->options.kind, built_in ? "" : " ",
                   built_in ? "" : d->options.path, d->count[NAS_CLASS_TUNE],
                   d->count[NAS_CLASS_REWARD], d->count[NAS_CLASS_REPORT], (int)d->classes);
}

nas_status nas_class_data_open(nas_ctx *ctx, const nas_class_data_options *o,
                               nas_class_data **out) {
    nas_status status = check_options(ctx, o);
    if (status != NAS_OK) return status;
    nas_class_data *d = nas_alloc_array(ctx, 1, sizeof *d);
    if (d == NULL) return NAS_ERR_NOMEM;
    d->options = *o;
    d->set = d->report = (nas__class_set){.h = o->h, .w = o->w, .c = o->c};
    if (strcmp(o->kind, "glyphs") == 0) {
        status = render(ctx, d);
    } else {
        status = nas__class_read_set(ctx, o->kind, o->path, &d->set);
        if (status == NAS_OK && o->report_path != NULL && o->report_path[0] != '\0')
            status = nas__class_read_set(ctx, o->kind, o->report_path, &d->report);
    }
    if (status == NAS_OK) status = split_up(ctx, d);
    if (status != NAS_OK) {
        nas_class_data_close(d);
        return status;
    }
    summarise(d);
    d->options.kind = d->options.path = d->options.report_path = NULL; /* the caller's texts */
    *out = d;
    return NAS_OK;
}

void nas_class_data_close(nas_class_data *d) {
    if (d == NULL) return;
    for (int i = 0; i < NAS_CLASS_SPLIT_COUNT; i++)
        nas_free(d->order[i]);
    nas__class_set_deinit(&d->set);
    nas__class_set_deinit(&d->report);
    nas_free(d);
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

size_t nas_class_data_count(const nas_class_data *d, nas_class_split split) {
    return d->count[split];
}

int32_t nas_class_data_classes(const nas_class_data *d) {
    return d->classes;
}

int32_t nas_class_data_label(const nas_class_data *d, nas_class_split split, size_t index) {
    return set_of(d, split)->labels[d->order[split][index]];
}

void nas_class_data_read(const nas_class_data *d, nas_class_split split, size_t index, bool flip,
                         int32_t dy, int32_t dx, float *hwc) {
    const nas__class_set *s = set_of(d, split);
    const uint8_t *from = s->pixels + d->order[split][index] * nas__class_image_bytes(s);
    for (int32_t k = 0; k < s->h * s->w; k++) {
        const int32_t y = k / s->w + dy, column = k % s->w + dx;
        const int32_t x = flip ? s->w - 1 - column : column;
        const bool inside = y >= 0 && y < s->h && x >= 0 && x < s->w;
        for (int32_t c = 0; c < s->c; c++) {
            const size_t at = ((size_t)(y * s->w + x)) * (size_t)s->c + (size_t)c;
            float v = 0;
            if (inside && s->is_float) memcpy(&v, from + at * sizeof v, sizeof v);
            if (inside && !s->is_float)
                v = ((float)from[at] / 255.0F - d->options.mean[c]) / d->options.deviation[c];
            *hwc++ = v;
        }
    }
}

const char *nas_class_data_hash(const nas_class_data *d, nas_class_split split) {
    return d->hash[split];
}

const char *nas_class_data_describe(const nas_class_data *d) {
    return d->description;
}

void nas_class_reader_read(void *arg, size_t index, float *hwc) {
    const nas_class_reader *r = arg;
    nas_class_data_read(r->data, r->split, index, false, 0, 0, hwc);
}

double nas_class_top1(const nas_class_data *d, nas_class_split split, const float *scores,
                      int32_t classes) {
    size_t right = 0;
    for (size_t i = 0; i < d->count[split]; i++) {
        const float *row = scores + i * (size_t)classes;
        int32_t best = 0;
        for (int32_t k = 1; k < classes; k++) {
            if (row[k] > row[best]) best = k;
        }
        right += best == nas_class_data_label(d, split, i);
    }
    return (double)right / (double)d->count[split];
}
