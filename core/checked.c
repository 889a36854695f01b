/* checked.c - checked integer arithmetic and number parsing for numbers from outside. */
#include "core/core.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

nas_status nas_mul_size(nas_ctx *ctx, size_t a, size_t b, size_t *out) {
    size_t product = 0;
    if (__builtin_mul_overflow(a, b, &product)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "size %zu * %zu overflows", a, b);
    }
    *out = product;
    return NAS_OK;
}

nas_status nas_add_size(nas_ctx *ctx, size_t a, size_t b, size_t *out) {
    size_t sum = 0;
    if (__builtin_add_overflow(a, b, &sum)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "size %zu + %zu overflows", a, b);
    }
    *out = sum;
    return NAS_OK;
}

nas_status nas_parse_i64(nas_ctx *ctx, const char *what, const char *text, int64_t lo, int64_t hi,
                         int64_t *out) {
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: '%s' is not a whole number", what, text);
    }
    if (errno == ERANGE || value < lo || value > hi) {
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: %s is outside %" PRId64 "..%" PRId64, what, text,
                        lo, hi);
    }
    *out = value;
    return NAS_OK;
}

nas_status nas_parse_double(nas_ctx *ctx, const char *what, const char *text, double lo, double hi,
                            double *out) {
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || isnan(value)) {
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: '%s' is not a number", what, text);
    }
    if (value < lo || value > hi) {
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: %s is outside %g..%g", what, text, lo, hi);
    }
    *out = value;
    return NAS_OK;
}
