/* onnx_tensors.c - constants, attributes and the table of values of an ONNX import. See ir/onnx_internal.h.
 *
 * Everything here comes from a file that may be hostile: extents, counts and lengths are checked before use. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

enum { ELEMENTS_MAX = 1 << 28 }; /* of one tensor */

/* ---- constants --------------------------------------------------------------------------------------------------- */

static size_t element_bytes(int32_t data_type) {
    switch (data_type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT32: return 4;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE: return 8;
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16: return 2;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT8:
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8:
    case ONNX__TENSOR_PROTO__DATA_TYPE__BOOL: return 1;
    default: return 0; /* the number is the file's, not an enum of ours */
    }
}

static nas_status typed_storage(nas__onnx *m, const Onnx__TensorProto *t, nas__onnx_value *c) {
    size_t n = 0;
    switch (t->data_type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
        c->storage = NAS__ONNX_FLOATS;
        c->data = t->float_data;
        n = t->n_float_data;
        break;
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
        c->storage = NAS__ONNX_DOUBLES;
        c->data = t->double_data;
        n = t->n_double_data;
        break;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
        c->storage = NAS__ONNX_INT64S;
        c->data = t->int64_data;
        n = t->n_int64_data;
        break;
    default: /* the small types share one array */
        c->storage = NAS__ONNX_INT32S;
        c->data = t->int32_data;
        n = t->n_int32_data;
        break;
    }
    if (n == c->count) return NAS_OK;
    return nas_fail(m->ctx, NAS_ERR_PARSE,
                    "tensor '%.60s' has %zu elements, its shape asks for %zu", c->name, n,
                    c->count);
}

static nas_status tensor_shape(nas__onnx *m, const Onnx__TensorProto *t, nas__onnx_value *c) {
    if (t->n_dims > NAS__ONNX_RANK_MAX) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "tensor '%.60s' has rank %zu, at most %d",
                        c->name, t->n_dims, NAS__ONNX_RANK_MAX);
    }
    c->rank = (int32_t)t->n_dims;
    c->count = 1;
    for (size_t i = 0; i < t->n_dims; i++) {
        const int64_t d = t->dims[i];
        if (d < 0 || d > ELEMENTS_MAX || c->count * (uint64_t)d > ELEMENTS_MAX) {
            return nas_fail(m->ctx, NAS_ERR_RANGE,
                            "tensor '%.60s': extent %" PRId64 " of axis %zu, at most %d elements",
                            c->name, d, i, ELEMENTS_MAX);
        }
        c->dims[i] = d;
        c->count *= (size_t)d;
    }
    return NAS_OK;
}

nas_status nas__onnx_tensor(nas__onnx *m, const Onnx__TensorProto *t, nas__onnx_value *out) {
    nas__onnx_value c = {.name = t->name != NULL ? t->name : "",
                         .kind = NAS__ONNX_CONST,
                         .v = NAS_VALUE_NONE,
                         .data_type = t->data_type};
    if (t->n_external_data > 0 ||
        (t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "tensor '%.60s' lies in another file: save the model in one file", c.name);
    }
    if (t->segment != NULL)
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "tensor '%.60s' is segmented", c.name);
    const size_t size = element_bytes(t->data_type);
    if (size == 0) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "tensor '%.60s' has data type %" PRId32
                        ": float, double, float16, int64, int32, int8, uint8 and bool are known",
                        c.name, t->data_type);
    }
    nas_status status = tensor_shape(m, t, &c);
    if (status == NAS_OK && !t->has_raw_data) {
        status = typed_storage(m, t, &c);
    } else if (status == NAS_OK) {
        c.storage = NAS__ONNX_RAW;
        c.data = t->raw_data.data;
        if (t->raw_data.len != c.count * size) {
            status = nas_fail(m->ctx, NAS_ERR_PARSE,
                              "tensor '%.60s' has %zu bytes, its shape asks for %zu", c.name,
                              t->raw_data.len, c.count * size);
        }
    }
    if (status == NAS_OK) *out = c;
    return status;
}

static uint64_t little_endian(const uint8_t *at, size_t size) {
    uint64_t bits = 0;
    for (size_t k = 0; k < size; k++)
        bits |= (uint64_t)at[k] << (8 * k);
    return bits;
}

/* IEEE 754 binary16. */
static double half(uint64_t bits) {
    const int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 1023);
    double value = 0;
    if (exponent == 31) {
        value = fraction != 0 ? (double)NAN : (double)INFINITY;
    } else {
        value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    }
    return (bits & 0x8000) != 0 ? -value : value;
}

bool nas__onnx_is_int(const nas__onnx_value *c) {
    return c->data_type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT &&
           c->data_type != ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE &&
           c->data_type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16;
}

/* A number of the file as int64; what lies outside is clamped. */
static int64_t to_int(double x) {
    if (!(x > -9.2e18)) return INT64_MIN;
    return x < 9.2e18 ? (int64_t)x : INT64_MAX;
}

int64_t nas__onnx_int_at(const nas__onnx_value *c, size_t index) {
    if (c->storage == NAS__ONNX_INT64S) return ((const int64_t *)c->data)[index];
    if (c->storage == NAS__ONNX_RAW && c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT64)
        return (int64_t)little_endian((const uint8_t *)c->data + 8 * index, 8);
    return to_int(nas__onnx_at(c, index));
}

static double raw_at(const nas__onnx_value *c, size_t index) {
    const size_t size = element_bytes(c->data_type);
    const uint64_t bits = little_endian((const uint8_t *)c->data + size * index, size);
    if (c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT) {
        const uint32_t word = (uint32_t)bits;
        float value = 0;
        memcpy(&value, &word, sizeof value);
        return (double)value;
    }
    if (c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE) {
        double value = 0;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    if (c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16) return half(bits);
    if (c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT64) return (double)(int64_t)bits;
    if (c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT32) return (double)(int32_t)bits;
    if (c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__INT8) return (double)(int8_t)bits;
    return (double)bits;
}

double nas__onnx_at(const nas__onnx_value *c, size_t index) {
    switch (c->storage) {
    case NAS__ONNX_RAW: return raw_at(c, index);
    case NAS__ONNX_FLOATS: return (double)((const float *)c->data)[index];
    case NAS__ONNX_DOUBLES: return ((const double *)c->data)[index];
    case NAS__ONNX_INT64S: return (double)((const int64_t *)c->data)[index];
    case NAS__ONNX_INT32S: {
        const int32_t x = ((const int32_t *)c->data)[index];
        return c->data_type == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16 ? half((uint32_t)x)
                                                                      : (double)x;
    }
    case NAS__ONNX_FILL: break;
    }
    return c->fill;
}

nas_status nas__onnx_new_const(nas__onnx *m, bool is_int, size_t count, nas__onnx_value *out) {
    if (count > ELEMENTS_MAX / 16)
        return nas_fail(m->ctx, NAS_ERR_RANGE, "a folded constant has %zu elements", count);
    nas__onnx_value c = {.name = "", .kind = NAS__ONNX_CONST, .v = NAS_VALUE_NONE};
    c.storage = is_int ? NAS__ONNX_INT64S : NAS__ONNX_DOUBLES;
    c.data_type =
        is_int ? ONNX__TENSOR_PROTO__DATA_TYPE__INT64 : ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE;
    c.rank = 1;
    c.dims[0] = (int64_t)count;
    c.count = count;
    c.data = nas_arena_alloc(m->ctx, m->arena, count, 8);
    if (c.data == NULL) return NAS_ERR_NOMEM;
    *out = c;
    return NAS_OK;
}

/* ---- values by name ---------------------------------------------------------------------------------------------- */

/* FNV-1a, Fowler, Noll and Vo. */
static size_t slot_of(const nas__onnx *m, const char *name) {
    uint64_t h = 14695981039346656037u;
    for (const char *p = name; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 1099511628211u;
    size_t slot = (size_t)(h ^ h >> 32) & m->mask;
    while (m->table[slot] != 0 && strcmp(m->values[m->table[slot] - 1].name, name) != 0)
        slot = (slot + 1) & m->mask;
    return slot;
}

const nas__onnx_value *nas__onnx_find(const nas__onnx *m, const char *name) {
    const int32_t at = m->table[slot_of(m, name)];
    return at == 0 ? NULL : &m->values[at - 1];
}

nas_status nas__onnx_define(nas__onnx *m, const char *name, nas__onnx_value value) {
    if (name == NULL || name[0] == '\0')
        return nas_fail(m->ctx, NAS_ERR_PARSE, "a value has no name");
    const size_t slot = slot_of(m, name);
    if (m->table[slot] != 0)
        return nas_fail(m->ctx, NAS_ERR_PARSE, "value '%.60s' is defined twice", name);
    if (m->n_values == m->cap_values)
        return nas_fail(m->ctx, NAS_ERR_INTERNAL, "more values than were counted");
    value.name = name;
    m->values[m->n_values++] = value;
    m->table[slot] = (int32_t)m->n_values;
    return NAS_OK;
}

const nas__onnx_value *nas__onnx_input(const nas__onnx *m, const nas__onnx_node *n, size_t i) {
    return i >= n->n_input || n->input[i][0] == '\0' ? NULL : nas__onnx_find(m, n->input[i]);
}

nas_status nas__onnx_output(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value value) {
    return nas__onnx_define(m, n->output[0], value);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

const Onnx__AttributeProto *nas__onnx_attribute(const nas__onnx_node *n, const char *name) {
    for (size_t i = 0; i < n->n_attribute; i++) {
        if (n->attribute[i]->name != NULL && strcmp(n->attribute[i]->name, name) == 0)
            return n->attribute[i];
    }
    return NULL;
}

int64_t nas__onnx_attr_int(const nas__onnx_node *n, const char *name, int64_t otherwise) {
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, name);
    return a != NULL ? a->i : otherwise;
}

float nas__onnx_attr_float(const nas__onnx_node *n, const char *name, float otherwise) {
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, name);
    return a != NULL ? a->f : otherwise;
}

bool nas__onnx_attr_is(const nas__onnx_node *n, const char *name, const char *text,
                       bool otherwise) {
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, name);
    if (a == NULL) return otherwise;
    return a->s.len == strlen(text) && a->s.data != NULL && memcmp(a->s.data, text, a->s.len) == 0;
}

nas_status nas__onnx_attr_ints(nas__onnx *m, const nas__onnx_node *n, const char *name,
                               size_t count, int32_t lo, int32_t otherwise, int32_t *out) {
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, name);
    if (a != NULL && a->n_ints != count) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "%s has %zu numbers, %zu are supported (two spatial axes)", name, a->n_ints,
                        count);
    }
    for (size_t i = 0; i < count; i++) {
        const int64_t x = a != NULL ? a->ints[i] : otherwise;
        if (x < lo || x > 1 << 20) {
            return nas_fail(m->ctx, NAS_ERR_RANGE,
                            "%s holds %" PRId64 ", allowed is %" PRId32 " to %d", name, x, lo,
                            1 << 20);
        }
        out[i] = (int32_t)x;
    }
    return NAS_OK;
}

nas_status nas__onnx_int_list(nas__onnx *m, const nas__onnx_node *n, const char *name, size_t input,
                              int64_t out[2 * NAS__ONNX_RANK_MAX], int32_t *count) {
    const nas__onnx_value *c = nas__onnx_input(m, n, input);
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, name);
    *count = -1;
    if (c == NULL && a == NULL) return NAS_OK;
    if (c != NULL && c->kind != NAS__ONNX_CONST)
        return nas__onnx_unsupported(m, "a list of numbers is computed while the network runs");
    const size_t len = c != NULL ? c->count : a->n_ints;
    if (len > 2 * NAS__ONNX_RANK_MAX)
        return nas_fail(m->ctx, NAS_ERR_RANGE, "%s holds %zu numbers", name, len);
    for (size_t i = 0; i < len; i++)
        out[i] = c != NULL ? nas__onnx_int_at(c, i) : a->ints[i];
    *count = (int32_t)len;
    return NAS_OK;
}

nas_status nas__onnx_axis(nas__onnx *m, int64_t axis, int32_t rank, int32_t *out) {
    if (axis < -rank || axis >= rank) {
        return nas_fail(m->ctx, NAS_ERR_RANGE, "axis %" PRId64 " of a value of rank %" PRId32, axis,
                        rank);
    }
    *out = (int32_t)(axis < 0 ? axis + rank : axis);
    return NAS_OK;
}
