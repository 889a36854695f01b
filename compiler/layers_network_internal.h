/* layers_network_internal.h - a network lowered to the layer form: which kernels run, on which values, where those lie.
 * Never leaves compiler/.
 *
 * Integers. A value whose node has a quantization is stored as codes, one byte each (ir/quantize.h). Layers whose operands
 * and result are all stored so compute on codes; the others compute in floats: what they read is decoded before, what they
 * make is coded after. The floats of a coded value are a value of their own, its twin: values 0..n-1 are those of the
 * graph's nodes, n..2n-1 their twins (used where there is need). */
#ifndef NAS_COMPILER_LAYERS_NETWORK_INTERNAL_H
#define NAS_COMPILER_LAYERS_NETWORK_INTERNAL_H

#include "compiler/layers_q_internal.h"

enum { NAS__CONTROL_BYTES = 8192 }; /* the emitted text checks that its control block fits */

typedef enum nas__layer_kind {
    NAS__LAYER_CONV,
    NAS__LAYER_OP,
    NAS__LAYER_OUTPUT, /* to the caller, decoded where the value is stored as codes */
    NAS__LAYER_QCONV,
    NAS__LAYER_QOP
} nas__layer_kind;

/* One kernel call. */
typedef struct nas__layer {
    nas__layer_kind kind;
    nas_value node; /* the operator; a fused chain is named by its first node */
    nas_value
        value; /* what it produces: the last node of the chain or its twin; OUTPUT: what it reads */
    int32_t n_inputs;
    nas_value inputs[2]; /* CONV: data and residual */
    /* QCONV that adds, or that ends with a prelu: the convolution's own coded value, which no other layer reads; else
     * NAS_VALUE_NONE. The activation of the sum is in op. */
    nas_value between;
    nas_value slope;     /* PRELU node whose slopes are fused, NAS_VALUE_NONE without */
    nas__conv conv;      /* CONV */
    double zeros;        /* share of the weights that is zero, 0 where that is too little to use */
    int32_t n_ways, way; /* of ways[] or qways[], the one that is used */
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    double measured_ns[NAS__CONV_WAYS_MAX]; /* by a tuner, 0 where nobody measured */
    nas__op op;                             /* OP */
    nas__qconv qconv;                       /* QCONV, planned from conv */
    nas__qconv_way qways[NAS__QCONV_WAYS_MAX];
    nas__qop qop; /* QOP; OUTPUT of a coded value */
    int32_t part; /* OP or QOP that copies into a concatenation: which member */
    /* Elements from pixel (0,0) of the value to where this layer begins; not 0 for such copies alone. */
    size_t out_offset;
    int32_t units;
    size_t scratch_floats;
    size_t weights_at, weight_floats;
    bool barrier;  /* all threads must be here before it starts */
    int32_t chain; /* layers of the chain that begins here; 1: it stands alone; 0: inside a chain */
    int32_t band;  /* first of a chain: rows of its result that go through the chain together */
} nas__layer;

/* Where a value is. Members of a concatenation lie in its buffer. */
typedef struct nas__place {
    bool used;     /* some layer reads or writes it */
    bool constant; /* in the weights */
    bool decoded;  /* of a twin: a layer fills it from the codes */
    bool planar;   /* codes in planes of four channels: nas__view.plane */
    bool banded; /* inside a chain: there is room for the rows of one band alone, for each thread */
    bool
        slides; /* banded, of more than a band: rows that the next one reads again are moved to the front */
    int32_t window; /* rows that a banded value has room for */
    nas_value
        same; /* the value that this one is another name of (reshape without motion), or itself */
    nas_value host;  /* the value whose buffer it is a part of, or itself */
    int32_t channel; /* first channel within the host */
    int32_t buffer;  /* of the outermost host; -1 for constants */
    size_t
        shift; /* elements from the image of one thread to that of the next; 0 unless inside a chain */
    int32_t pitch;
    size_t plane; /* 0 unless planar */
    size_t row,
        at; /* at: elements from the start of the buffer, or floats of the weights, to pixel (0,0) */
} nas__place;

typedef struct nas__layer_buffer {
    nas_value value;                  /* the outermost host */
    int32_t top, left, bottom, right; /* border in pixels */
    size_t floats, at;                /* at: floats from the start of the values in the arena */
    int32_t first, last;              /* layers that write or read it */
} nas__layer_buffer;

typedef struct nas__layers {
    nas_arena *arena;
    const nas_graph *graph;             /* borrowed: simplified by graph_passes.c */
    const nas_compile_options *options; /* borrowed while lowering; NULL afterwards */
    int64_t start_ns;                   /* of lowering: the time for tuning ends after it */
    const nas_target *target;
    int32_t max_threads;
    char graph_hash[NAS_SHA256_HEX]; /* of the network as given, structure only */
    nas_value input, output;
    nas_value
        shuffle;   /* the output is depth-to-space of codes, done while they are decoded; or NONE */
    bool integers; /* some value is stored as codes, or some weights are */
    bool words;    /* some weights are lists of what is not zero, or of bf16 */
    int32_t n_layers, n_buffers;
    nas__layer *layers;
    nas__place *places; /* by value, twins included */
    int32_t n_values;   /* of places */
    nas__layer_buffer *buffers;
    size_t value_floats, scratch_floats, weight_floats; /* scratch: per thread */
    size_t arena_bytes; /* control block, values, scratch of each thread */
} nas__layers;

static inline const nas_node *nas__layers_node(const nas__layers *l, nas_value v) {
    return nas_graph_node(l->graph, v < l->n_values / 2 ? v : v - l->n_values / 2);
}
/* nas__layers_words - are the weights words, not all of them floats? */
static inline bool nas__layers_words(const nas__layers *l) {
    return l->integers || l->words;
}
/* nas__layers_quant - how the elements of value v are stored: NULL as floats. */
const nas_quant *nas__layers_quant(const nas__layers *l, nas_value v);
bool nas__same_quant(const nas_quant *a, const nas_quant *b);  /* both are set */
size_t nas__layers_element(const nas__layers *l, nas_value v); /* bytes: 1 or 4 */

/* nas__layers_lower - passes, fusion, ways, plan. Errors: UNSUPPORTED naming the node. */
nas_status nas__layers_lower(nas_ctx *ctx, const nas_graph *graph,
                             const nas_compile_options *options, nas__layers **out);
void nas__layers_free(nas__layers *layers);
nas_status nas__layers_plan(nas_ctx *ctx, nas__layers *layers); /* layers_plan.c */
/* nas__layers_planes - decides which values lie in planes, and joins what only layers on planes do together. Before places
 * are found. layers_planes.c */
nas_status nas__layers_planes(nas_ctx *ctx, nas__layers *layers);
/* What a layer of a chain reads for a row of its result: `reach` rows from row * stride - pad on. `height` of the result. */
typedef struct nas__layer_rows {
    int32_t stride, reach, pad, height;
} nas__layer_rows;
nas__layer_rows nas__layers_rows(const nas__layers *layers, const nas__layer *layer);
/* nas__layers_chains - finds chains: convolutions, and the turning of planes at either end, whose results are read by the
 * next one alone and too large for the cache. Bands of rows go through a whole chain while they are there. Each thread has its own rows of the values inside;
 * rows at the seam of two threads are computed by both. Widens buffers and lives. layers_chain.c */
void nas__layers_chains(nas__layers *layers);
nas__view nas__layers_view(const nas__layers *layers,
                           nas_value v); /* of a value that has a place */
/* nas__layer_to_integers - makes a layer, not planned yet, of kind CONV or OP one of integers where ir/quantize.h defines
 * what it computes; else false, and the layer as it was. layers_integers.c */
bool nas__layer_to_integers(const nas__layers *l, nas__layer *layer);
/* nas__layer_plan_integers - of QCONV, QOP and OUTPUT of codes: views, and ways by estimate. */
nas_status nas__layer_plan_integers(nas_ctx *ctx, const nas__layers *l, nas__layer *layer);
/* nas__layer_weight_bytes - of a convolution, floats or integers, computed in its way number `way`. */
size_t nas__layer_weight_bytes(const nas__layers *l, const nas__layer *layer, int32_t way);
/* nas__layer_size_integers - of the chosen way: units, bytes of scratch and weights. */
void nas__layer_size_integers(const nas__layers *l, nas__layer *layer, size_t *scratch_bytes,
                              size_t *weight_bytes);
/* nas__layer_pack_integers - the weight block. Errors: RANGE (scales that the arithmetic has no room for). */
nas_status nas__layer_pack_integers(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                                    void *out);
void nas__layers_dump(const nas__layers *layers, nas_buf *out);

/* layers_emit.c */
nas_status nas__layers_emit(nas_ctx *ctx, const nas__layers *layers, nas__sources *out);
/* nas__layers_pack - model_weights: out[weight_floats]. INVALID without weights. */
nas_status nas__layers_pack(nas_ctx *ctx, const nas__layers *layers, float *out);

#endif
