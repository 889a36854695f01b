/* ofa.c - the MobileNetV3 space of Once-for-All (Cai et al., arXiv:1908.09791; blocks of Howard et al.,
 * arXiv:1905.02244): see space.h. Genes: resolution, depth of each unit, then kernel and expansion of each block; those of
 * blocks beyond the depth do not matter. */
#include "spaces/spaces_internal.h"

#include <stdio.h>
#include <string.h>

enum {
    UNITS = 5,
    DEPTH_MAX = 4,
    DEPTH_MIN = 2,
    BLOCKS = UNITS * DEPTH_MAX,
    CHOICES = 3,
    RESOLUTION_MIN = 128,
    RESOLUTION_MAX = 224,
    RESOLUTION_STEP = 4,
    RESOLUTION = 0, /* gene */
    DEPTH = 1,      /* first of UNITS genes */
    BLOCK = DEPTH + UNITS,
    GENES = BLOCK + 2 * BLOCKS,
    CHANNEL_MULTIPLE = 8
};
static const int32_t kernels[CHOICES] = {3, 5, 7}, expansions[CHOICES] = {3, 4, 6};

static const struct unit {
    int32_t channels, stride;
    bool hard_swish, squeeze;
} units[UNITS] = {{24, 2, false, false},
                  {40, 2, false, true},
                  {80, 2, true, false},
                  {112, 1, true, true},
                  {160, 2, true, true}};

typedef struct ofa_space {
    nas_space base;
    nas_ofa_options options;
} ofa_space;

nas_ofa_options nas_ofa_options_default(void) {
    return (nas_ofa_options){.width_percent = 100, .classes = 1000};
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

/* The nearest multiple of 8 that is not more than 10 % below, at least 8 (the rule of the MobileNets). */
static int32_t rounded(int32_t percent_channels) {
    const int32_t n = CHANNEL_MULTIPLE * 100;
    int32_t channels = (percent_channels + n / 2) / n * CHANNEL_MULTIPLE;
    if (channels < CHANNEL_MULTIPLE) channels = CHANNEL_MULTIPLE;
    if (channels * 1000 < percent_channels * 9) channels += CHANNEL_MULTIPLE;
    return channels;
}

static nas_value activation(nas__net *net, const char *name, nas_value x, bool hard_swish) {
    if (!hard_swish) return nas__net_relu(net, name, x);
    return nas__net_unary(net, name, x, NAS_UNARY_HARD_SWISH, 0, 0);
}

static nas_value squeeze(nas__net *net, nas_value x) {
    const int32_t wide = nas__net_shape(net, x).c;
    const int32_t narrow = rounded(wide / 4 * 100);
    nas_value y = nas__net_avg_pool(net, "se.average", x, 0, 1, 0);
    y = nas__net_conv(net, "se.reduce", y, (nas__conv){narrow, 1, 1, 1, true});
    y = nas__net_relu(net, "se.relu", y);
    y = nas__net_conv(net, "se.expand", y, (nas__conv){wide, 1, 1, 1, true});
    y = nas__net_unary(net, "se.gate", y, NAS_UNARY_HARD_SIGMOID, 1.0f / 6, 0.5f);
    return nas__net_mul(net, "se.mul", x, y);
}

static nas_value block(nas__net *net, nas_value x, int32_t kernel, int32_t expansion,
                       const struct unit *u, int32_t channels, int32_t stride) {
    const int32_t in = nas__net_shape(net, x).c;
    const int32_t wide = rounded(in * expansion * 100);
    nas_value y = nas__net_conv(net, "expand", x, (nas__conv){wide, 1, 1, 1, true});
    y = activation(net, "expand.act", y, u->hard_swish);
    y = nas__net_conv(net, "depth", y, (nas__conv){wide, kernel, stride, wide, true});
    y = activation(net, "depth.act", y, u->hard_swish);
    if (u->squeeze) y = squeeze(net, y);
    y = nas__net_conv(net, "project", y, (nas__conv){channels, 1, 1, 1, true});
    return in == channels && stride == 1 ? nas__net_add(net, "add", y, x) : y;
}

/* Stem and the one fixed block: depthwise 3x3 and projection beside the identity. */
static nas_value first_layers(nas__net *net, int32_t resolution, int32_t channels) {
    nas_value x = nas__net_input(net, resolution, resolution, 3);
    x = nas__net_conv(net, "stem", x, (nas__conv){channels, 3, 2, 1, true});
    x = activation(net, "stem.act", x, true);
    nas_value y = nas__net_conv(net, "first.depth", x, (nas__conv){channels, 3, 1, channels, true});
    y = nas__net_relu(net, "first.depth.act", y);
    y = nas__net_conv(net, "first.project", y, (nas__conv){channels, 1, 1, 1, true});
    return nas__net_add(net, "first.add", y, x);
}

static nas_value last_layers(nas__net *net, nas_value x, int32_t percent, int32_t classes) {
    x = nas__net_conv(net, "final", x, (nas__conv){rounded(960 * percent), 1, 1, 1, true});
    x = activation(net, "final.act", x, true);
    x = nas__net_avg_pool(net, "average", x, 0, 1, 0);
    x = nas__net_conv(net, "mix", x, (nas__conv){rounded(1280 * percent), 1, 1, 1, false});
    x = activation(net, "mix.act", x, true);
    return nas__net_conv(net, "classifier", x, (nas__conv){classes, 1, 1, 1, true});
}

static int32_t resolution_of(const nas_point *point) {
    return RESOLUTION_MIN + RESOLUTION_STEP * point->gene[RESOLUTION];
}

static nas_status ofa_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                             nas_graph **out) {
    const nas_ofa_options *o = &((const ofa_space *)space)->options;
    nas__net net = {.ctx = ctx, .graph = nas_graph_new(ctx, "ofa"), .status = NAS_OK};
    if (net.graph == NULL) return nas_ctx_status(ctx);
    nas_value x = first_layers(&net, resolution_of(point), rounded(16 * o->width_percent));
    for (int32_t u = 0; u < UNITS; u++) {
        const int32_t channels = rounded(units[u].channels * o->width_percent);
        for (int32_t d = 0; d < DEPTH_MIN + point->gene[DEPTH + u]; d++) {
            const int32_t *genes = &point->gene[BLOCK + 2 * (u * DEPTH_MAX + d)];
            (void)snprintf(net.prefix, sizeof net.prefix, "u%db%d.", (int)u + 1, (int)d + 1);
            x = block(&net, x, kernels[genes[0]], expansions[genes[1]], &units[u], channels,
                      d == 0 ? units[u].stride : 1);
        }
    }
    net.prefix[0] = '\0';
    return nas__net_finish(&net, last_layers(&net, x, o->width_percent, o->classes), out);
}

/* ---- which genes matter ------------------------------------------------------------------------------------------- */

static bool ofa_matters(const nas_space *space, const nas_point *point, int32_t gene) {
    (void)space;
    if (gene < BLOCK) return true;
    const int32_t number = (gene - BLOCK) / 2;
    return number % DEPTH_MAX < DEPTH_MIN + point->gene[DEPTH + number / DEPTH_MAX];
}

static int32_t ofa_group(int32_t gene) {
    return gene < BLOCK ? gene : BLOCK + (gene - BLOCK) / 2;
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static void ofa_format(const nas_space *space, const nas_point *point, nas_buf *out) {
    (void)space;
    nas_buf_printf(out, "ofa r%" PRId32, resolution_of(point));
    for (int32_t u = 0; u < UNITS; u++) {
        nas_buf_puts(out, " |");
        for (int32_t d = 0; d < DEPTH_MIN + point->gene[DEPTH + u]; d++) {
            const int32_t *genes = &point->gene[BLOCK + 2 * (u * DEPTH_MAX + d)];
            nas_buf_printf(out, " %" PRId32 ",%" PRId32, kernels[genes[0]], expansions[genes[1]]);
        }
    }
}

typedef struct reader {
    nas_ctx *ctx;
    const char *text, *at;
} reader;

static void skip_blanks(reader *r) {
    while (*r->at == ' ' || *r->at == ',')
        r->at++;
}

static nas_status read_number(reader *r, const char *what, int32_t *out) {
    enum { DIGITS_MAX = 4 };
    int32_t value = 0;
    int n = 0;
    for (; n < DIGITS_MAX && r->at[n] >= '0' && r->at[n] <= '9'; n++)
        value = value * 10 + (r->at[n] - '0');
    if (n == 0 || (r->at[n] >= '0' && r->at[n] <= '9')) {
        return nas_fail(r->ctx, NAS_ERR_PARSE, "column %td: expected %s", r->at - r->text + 1,
                        what);
    }
    r->at += n;
    *out = value;
    return NAS_OK;
}

/* A number that must be one of three; its place among them. */
static nas_status read_choice(reader *r, const char *what, const int32_t *values, int32_t *out) {
    const char *start = r->at;
    int32_t value = 0;
    const nas_status status = read_number(r, what, &value);
    if (status != NAS_OK) return status;
    for (int32_t i = 0; i < CHOICES; i++) {
        if (values[i] != value) continue;
        *out = i;
        return NAS_OK;
    }
    return nas_fail(r->ctx, NAS_ERR_RANGE,
                    "column %td: %s is %" PRId32 ", the space offers %" PRId32 ", %" PRId32
                    ", %" PRId32,
                    start - r->text + 1, what, value, values[0], values[1], values[2]);
}

static nas_status read_resolution(reader *r, nas_point *out) {
    int32_t value = 0;
    const nas_status status = read_number(r, "a resolution", &value);
    if (status != NAS_OK) return status;
    if (value < RESOLUTION_MIN || value > RESOLUTION_MAX || value % RESOLUTION_STEP != 0) {
        return nas_fail(r->ctx, NAS_ERR_RANGE,
                        "resolution is %" PRId32 ", the space offers %d..%d in steps of %d", value,
                        RESOLUTION_MIN, RESOLUTION_MAX, RESOLUTION_STEP);
    }
    out->gene[RESOLUTION] = (value - RESOLUTION_MIN) / RESOLUTION_STEP;
    return NAS_OK;
}

static nas_status read_unit(reader *r, int32_t unit, nas_point *out) {
    if (r->at[0] != ' ' || r->at[1] != '|')
        return nas_fail(r->ctx, NAS_ERR_PARSE, "column %td: expected \" |\"", r->at - r->text + 1);
    r->at += 2;
    int32_t depth = 0;
    nas_status status = NAS_OK;
    while (status == NAS_OK && r->at[0] == ' ' && r->at[1] != '|') {
        if (depth == DEPTH_MAX) break;
        r->at++;
        int32_t *genes = &out->gene[BLOCK + 2 * (unit * DEPTH_MAX + depth)];
        status = read_choice(r, "kernel", kernels, &genes[0]);
        if (status == NAS_OK && *r->at != ',')
            status =
                nas_fail(r->ctx, NAS_ERR_PARSE, "column %td: expected \",\"", r->at - r->text + 1);
        if (status != NAS_OK) return status;
        r->at++;
        status = read_choice(r, "expansion", expansions, &genes[1]);
        depth++;
    }
    if (status == NAS_OK && depth < DEPTH_MIN) {
        status = nas_fail(r->ctx, NAS_ERR_RANGE,
                          "column %td: unit %" PRId32 " has %" PRId32
                          " blocks, the space offers 2, 3, 4",
                          r->at - r->text + 1, unit + 1, depth);
    }
    if (status == NAS_OK) out->gene[DEPTH + unit] = depth - DEPTH_MIN;
    return status;
}

typedef enum field { KS, EXPAND, DEPTHS, RES, FIELDS } field;

static nas_status read_field(reader *r, field which, nas_point *out) {
    static const int32_t counts[FIELDS] = {BLOCKS, BLOCKS, UNITS, 1};
    static const int32_t depths[CHOICES] = {2, 3, 4};
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < counts[which] && status == NAS_OK; i++) {
        skip_blanks(r);
        switch (which) {
        case KS: status = read_choice(r, "kernel", kernels, &out->gene[BLOCK + 2 * i]); break;
        case EXPAND:
            status = read_choice(r, "expansion", expansions, &out->gene[BLOCK + 2 * i + 1]);
            break;
        case DEPTHS: status = read_choice(r, "depth", depths, &out->gene[DEPTH + i]); break;
        case RES: status = read_resolution(r, out); break;
        case FIELDS: break;
        }
    }
    skip_blanks(r);
    return status;
}

/* "ks=...; expand=...; depth=...; resolution=..." in any order, each once. */
static nas_status parse_fields(reader *r, const nas_space *space, nas_point *out) {
    static const char *const names[FIELDS] = {"ks=", "expand=", "depth=", "resolution="};
    bool seen[FIELDS] = {false};
    for (int n = 0; n < FIELDS; n++) {
        skip_blanks(r);
        int f = 0;
        while (f < FIELDS && (seen[f] || strncmp(r->at, names[f], strlen(names[f])) != 0))
            f++;
        if (f == FIELDS) {
            return nas_fail(r->ctx, NAS_ERR_PARSE,
                            "column %td: expected ks=, expand=, depth= and resolution=, each once",
                            r->at - r->text + 1);
        }
        seen[f] = true;
        r->at += strlen(names[f]);
        const nas_status status = read_field(r, (field)f, out);
        if (status != NAS_OK) return status;
        if (*r->at == ';' && n < FIELDS - 1) r->at++;
    }
    nas__plain_canonical(space, out);
    return NAS_OK;
}

static nas_status ofa_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                            nas_point *out) {
    reader r = {.ctx = ctx, .text = text, .at = text};
    *out = (nas_point){.n = GENES};
    nas_status status = NAS_OK;
    if (strncmp(text, "ofa r", 5) == 0) {
        r.at += 5;
        status = read_resolution(&r, out);
        for (int32_t u = 0; u < UNITS && status == NAS_OK; u++)
            status = read_unit(&r, u, out);
    } else {
        status = parse_fields(&r, space, out);
    }
    if (status == NAS_OK && *r.at != '\0')
        status = nas_fail(ctx, NAS_ERR_PARSE, "column %td: expected the end", r.at - text + 1);
    return status;
}

static const nas__space_ops ofa_ops = {
    .name = "ofa",
    .sample = nas__plain_sample,
    .mutate = nas__plain_mutate,
    .crossover = nas__plain_crossover,
    .largest = nas__plain_largest,
    .smallest = nas__plain_smallest,
    .check = nas__plain_check,
    .decode = ofa_decode,
    .format = ofa_format,
    .parse = ofa_parse,
    .matters = ofa_matters,
    .group = ofa_group,
};

static void fill_genes(nas_gene *genes) {
    genes[RESOLUTION] = nas__gene("resolution", NAS_GENE_ORDINAL,
                                  (RESOLUTION_MAX - RESOLUTION_MIN) / RESOLUTION_STEP + 1);
    for (int u = 0; u < UNITS; u++) {
        char name[32];
        (void)snprintf(name, sizeof name, "unit%d.depth", u + 1);
        genes[DEPTH + u] = nas__gene(name, NAS_GENE_ORDINAL, CHOICES);
        for (int d = 0; d < DEPTH_MAX; d++) {
            nas_gene *pair = &genes[BLOCK + 2 * (u * DEPTH_MAX + d)];
            (void)snprintf(name, sizeof name, "u%db%d.kernel", u + 1, d + 1);
            pair[0] = nas__gene(name, NAS_GENE_ORDINAL, CHOICES);
            (void)snprintf(name, sizeof name, "u%db%d.expand", u + 1, d + 1);
            pair[1] = nas__gene(name, NAS_GENE_ORDINAL, CHOICES);
        }
    }
}

nas_status nas_space_ofa_new(nas_ctx *ctx, const nas_ofa_options *o, nas_space **out) {
    if (o->width_percent != 100 && o->width_percent != 120) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "space 'ofa': width_percent is %" PRId32 ", use 100 or 120",
                        o->width_percent);
    }
    if (o->classes < 1 || o->classes > 10000) {
        return nas_fail(ctx, NAS_ERR_INVALID, "space 'ofa': classes is %" PRId32 ", limit 1..10000",
                        o->classes);
    }
    nas_gene genes[GENES];
    fill_genes(genes);
    /* (9^2 + 9^3 + 9^4)^5 networks a resolution */
    double size = genes[RESOLUTION].cardinality;
    for (int u = 0; u < UNITS; u++)
        size *= 81 + 729 + 6561;
    ofa_space *space = nas_alloc_array(ctx, 1, sizeof *space);
    if (space == NULL) return NAS_ERR_NOMEM;
    space->options = *o;
    const nas_status status = nas__plain_init(ctx, &space->base, &ofa_ops, genes, GENES, size);
    if (status != NAS_OK) {
        nas_free(space);
        return status;
    }
    *out = &space->base;
    return NAS_OK;
}
