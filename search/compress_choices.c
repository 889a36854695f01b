/* compress_choices.c - reads the lists of precisions, patterns and rates. */
#include "search/compress_choices.h"
#include "search/oneshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_one_of(const char *space, const char *const *names) {
    while (*names != NULL && strcmp(space, *names) != 0)
        names++;
    return *names != NULL;
}

bool nas__space_has_bits(const char *space) {
    return is_one_of(space, (const char *const[]){"bits", "mixed", "joint", NULL});
}

bool nas__space_has_patterns(const char *space) {
    return is_one_of(space, (const char *const[]){"scheme", "mixed", "joint", NULL});
}

bool nas__space_has_channels(const char *space) {
    return is_one_of(space, (const char *const[]){"amc", "agmc", "joint", NULL});
}

bool nas__space_has_levels(const char *space) {
    return nas__space_has_bits(space) || nas__space_has_patterns(space);
}

/* One item after another, apart by commas or blanks; false at the end. */
static bool next_item(const char **at, char item[NAS__PATTERN_TEXT_MAX]) {
    *at += strspn(*at, ", ");
    const size_t len = strcspn(*at, ", ");
    const size_t kept = len < NAS__PATTERN_TEXT_MAX ? len : NAS__PATTERN_TEXT_MAX - 1;
    memcpy(item, *at, kept);
    item[kept] = '\0';
    *at += len;
    return len > 0;
}

static nas_status too_many(nas_ctx *ctx) {
    return nas_fail(ctx, NAS_ERR_INVALID, "more than %d items", NAS__CHOICES_MAX);
}

static int by_bits(const void *a, const void *b) {
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* 2 to 8, or also 32: rising. */
static nas_status read_bits(nas_ctx *ctx, const char *text, bool floats,
                            int32_t bits[NAS__CHOICES_MAX], int32_t *n) {
    char item[NAS__PATTERN_TEXT_MAX];
    *n = 0;
    while (next_item(&text, item)) {
        char *end = NULL;
        const long number = strtol(item, &end, 10);
        if (*end != '\0' || ((number < 2 || number > 8) && (number != 32 || !floats)))
            return nas_fail(ctx, NAS_ERR_INVALID, "'%s': bits are 2 to 8%s", item,
                            floats ? ", or 32 for floats" : "");
        for (int32_t i = 0; i < *n; i++) {
            if (bits[i] == number)
                return nas_fail(ctx, NAS_ERR_INVALID, "%ld bits twice: once is enough", number);
        }
        if (*n == NAS__CHOICES_MAX) return too_many(ctx);
        bits[(*n)++] = (int32_t)number;
    }
    if (*n == 0) return nas_fail(ctx, NAS_ERR_INVALID, "empty: name bits, such as \"4,8\"");
    qsort(bits, (size_t)*n, sizeof *bits, by_bits);
    return NAS_OK;
}

nas_status nas__choices_bits(nas_ctx *ctx, const char *text, nas__choices *out) {
    return read_bits(ctx, text, true, out->bits, &out->n_bits);
}

nas_status nas__choices_acts(nas_ctx *ctx, const char *text, nas__choices *out) {
    return read_bits(ctx, text, false, out->acts, &out->n_acts);
}

bool nas__has_acts(const nas_config *config) {
    return config->compress.act_bits > 0 || config->compress.act_bits_list[0] != '\0';
}

nas_status nas__choices_patterns(nas_ctx *ctx, const char *text, nas__choices *out) {
    char item[NAS__PATTERN_TEXT_MAX];
    out->n_patterns = 0;
    if (strcmp(text, "none") == 0) return NAS_OK;
    while (next_item(&text, item)) {
        if (out->n_patterns == NAS__CHOICES_MAX) return too_many(ctx);
        nas__pattern_choice *p = &out->patterns[out->n_patterns];
        const nas_status status = nas_oneshot_pattern(ctx, item, &p->sparsity);
        if (status != NAS_OK) return status;
        for (int32_t i = 0; i < out->n_patterns; i++) {
            if (strcmp(out->patterns[i].text, item) == 0)
                return nas_fail(ctx, NAS_ERR_INVALID, "pattern '%s' twice: once is enough", item);
        }
        memcpy(p->text, item, sizeof p->text);
        p->has_rate = nas_oneshot_pattern_has_rate(p->sparsity.pattern);
        out->n_patterns++;
    }
    if (out->n_patterns > 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "empty: name patterns, such as \"1x4,2:4\", or none");
}

static int by_rate(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

nas_status nas__choices_rates(nas_ctx *ctx, const char *text, nas__choices *out) {
    char item[NAS__PATTERN_TEXT_MAX];
    out->n_rates = 0;
    while (next_item(&text, item)) {
        char *end = NULL;
        const double rate = strtod(item, &end);
        if (*end != '\0' || !(rate > 0 && rate < 1))
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "'%s': rates are above 0 and below 1 (dense layers are offered anyway)",
                            item);
        for (int32_t i = 0; i < out->n_rates; i++) {
            if (fabs(out->rates[i] - rate) < 1e-9)
                return nas_fail(ctx, NAS_ERR_INVALID, "rate %g twice: once is enough", rate);
        }
        if (out->n_rates == NAS__CHOICES_MAX) return too_many(ctx);
        out->rates[out->n_rates++] = rate;
    }
    if (out->n_rates > 0) {
        qsort(out->rates, (size_t)out->n_rates, sizeof *out->rates, by_rate);
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID, "empty: name rates, such as \"0.5,0.75\"");
}

nas_status nas__choices_read(nas_ctx *ctx, const nas_config *config, nas__choices *out) {
    const char *space = config->compress.space;
    nas_status status = NAS_OK;
    *out = (nas__choices){0};
    if (nas__space_has_bits(space))
        status = nas_wrap(ctx, nas__choices_bits(ctx, config->compress.bits, out), "compress.bits");
    if (config->compress.act_bits_list[0] != '\0') {
        if (status == NAS_OK)
            status = nas_wrap(ctx, nas__choices_acts(ctx, config->compress.act_bits_list, out),
                              "compress.act_bits_list");
    } else if (config->compress.act_bits > 0) {
        out->acts[out->n_acts++] = config->compress.act_bits;
    }
    if (status == NAS_OK && nas__space_has_patterns(space)) {
        status = nas_wrap(ctx, nas__choices_patterns(ctx, config->compress.patterns, out),
                          "compress.patterns");
        if (status == NAS_OK)
            status = nas_wrap(ctx, nas__choices_rates(ctx, config->compress.rates, out),
                              "compress.rates");
    }
    return status;
}
