/* named.c - a space by its name, "fbnet:32x32": for programs that are told on the command line. */
#include "spaces/space.h"

#include <stdlib.h>
#include <string.h>

static const char names[] = "nb201, nb201-reached, nb201-folded, fbnet, ofa, ofa-w120, sr, sr720p";

const char *nas_space_names(void) {
    return names;
}

/* "HxW" or "HxWxC" into extents; *n how many were given. */
static nas_status parse_extents(nas_ctx *ctx, const char *name, const char *text, int most,
                                int32_t *extents) {
    const char *at = text;
    for (int i = 0; i < 3; i++) {
        char *end = NULL;
        const long value = strtol(at, &end, 10);
        if (end == at || value < 1 || value > 1 << 16 || i >= most) break;
        extents[i] = (int32_t)value;
        if (*end == '\0' && i >= 1) return NAS_OK;
        if (*end != 'x') break;
        at = end + 1;
    }
    return nas_fail(ctx, NAS_ERR_INVALID, "space '%s': the input is '%s', write e.g. %s", name,
                    text, most == 3 ? "32x32 or 88x88x1" : "32x32");
}

static nas_status new_nb201(nas_ctx *ctx, const char *name, const char *input, nas_nb201_form form,
                            nas_space **out) {
    nas_nb201_options o = nas_nb201_options_default();
    o.form = form;
    int32_t extents[3] = {o.height, o.width, o.input_channels};
    if (input != NULL) {
        const nas_status status = parse_extents(ctx, name, input, 3, extents);
        if (status != NAS_OK) return status;
    }
    o.height = extents[0];
    o.width = extents[1];
    o.input_channels = extents[2];
    return nas_space_nb201_new(ctx, &o, out);
}

static nas_status new_fbnet(nas_ctx *ctx, const char *name, const char *input, nas_space **out) {
    nas_fbnet_options o = nas_fbnet_options_default();
    int32_t extents[3] = {o.height, o.width, 3};
    if (input != NULL) {
        const nas_status status = parse_extents(ctx, name, input, 2, extents);
        if (status != NAS_OK) return status;
    }
    o.height = extents[0];
    o.width = extents[1];
    if (input != NULL && o.height < 64) o.classes = 100; /* the CIFAR-100 form */
    return nas_space_fbnet_new(ctx, &o, out);
}

/* The space of configs/sr720p.toml. */
static nas_sr_options sr720p_options(void) {
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 5;
    o.residual = (nas_range){8, 20, 4};
    o.expand = (nas_range){16, 64, 16};
    o.project = (nas_range){4, 16, 4};
    o.n_head_kernels = o.n_tail_kernels = 1;
    o.head_kernels[0] = o.tail_kernels[0] = 3;
    return o;
}

nas_status nas_space_new_named(nas_ctx *ctx, const char *name, nas_space **out) {
    const char *colon = strchr(name, ':');
    const size_t len = colon == NULL ? strlen(name) : (size_t)(colon - name);
    const char *input = colon == NULL ? NULL : colon + 1;
    static const char *const known[] = {"nb201", "nb201-reached", "nb201-folded", "fbnet",
                                        "ofa",   "ofa-w120",      "sr",           "sr720p"};
    const size_t n = sizeof known / sizeof known[0];
    size_t which = 0;
    while (which < n && (strlen(known[which]) != len || strncmp(known[which], name, len) != 0))
        which++;
    if (which == n) return nas_fail(ctx, NAS_ERR_NOTFOUND, "no space '%s': use %s", name, names);
    if (which <= 2) return new_nb201(ctx, name, input, (nas_nb201_form)which, out);
    if (which == 3) return new_fbnet(ctx, name, input, out);
    if (input != NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "space '%s': '%.*s' takes no input size", name,
                        (int)len, name);
    if (which == 6) {
        const nas_sr_options sr = nas_sr_options_default();
        return nas_space_sr_new(ctx, &sr, out);
    }
    if (which == 7) {
        const nas_sr_options sr = sr720p_options();
        return nas_space_sr_new(ctx, &sr, out);
    }
    nas_ofa_options ofa = nas_ofa_options_default();
    if (which == 5) ofa.width_percent = 120;
    return nas_space_ofa_new(ctx, &ofa, out);
}

/* Options that offer everything a text may say: as many blocks as it names, its own scale. */
static nas_sr_options widest_of(const char *text, int32_t lr_height, int32_t lr_width) {
    nas_sr_options o = nas_sr_options_default();
    const char *scale = strstr(text, " x");
    int32_t blocks = 0;
    for (const char *at = strchr(text, ':'); at != NULL; at = strchr(at + 1, ':'))
        blocks++;
    const bool known = scale != NULL && scale[2] >= '2' && scale[2] <= '4';
    o.scale = known ? scale[2] - '0' : o.scale; /* the parser names what else is wrong */
    o.lr_height = lr_height;
    o.lr_width = lr_width;
    o.blocks_min = 1;
    o.blocks_max = blocks < 1 ? 1 : blocks > NAS_SR_BLOCKS_MAX ? NAS_SR_BLOCKS_MAX : blocks;
    o.residual = o.expand = o.project = (nas_range){1, 1024, 1};
    o.n_head_kernels = o.n_tail_kernels = o.n_skip_kernels = NAS_KERNEL_CHOICES_MAX;
    for (int i = 0; i < NAS_KERNEL_CHOICES_MAX; i++)
        o.head_kernels[i] = o.tail_kernels[i] = o.skip_kernels[i] = 3 + 2 * i;
    return o;
}

nas_status nas_sr_text_graph(nas_ctx *ctx, const char *text, int32_t lr_height, int32_t lr_width,
                             nas_graph **out) {
    const nas_sr_options o = widest_of(text, lr_height, lr_width);
    nas_space *space = NULL;
    nas_point point;
    nas_status status = nas_space_sr_new(ctx, &o, &space);
    if (status == NAS_OK) status = nas_space_parse(ctx, space, text, &point);
    if (status == NAS_OK) status = nas_space_decode(ctx, space, &point, out);
    nas_space_free(space);
    return nas_wrap(ctx, status, "'%.80s'", text);
}
