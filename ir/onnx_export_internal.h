/* onnx_export_internal.h - what the files of the ONNX export share. Never leaves ir/.
 *
 * onnx_export.c writes graph and model, onnx_export_ops.c turns one IR node into ONNX nodes and initializers,
 * onnx_export_quant.c adds QuantizeLinear and DequantizeLinear. The message structures live in one arena for the length of an
 * export. */
#ifndef NAS_IR_ONNX_EXPORT_INTERNAL_H
#define NAS_IR_ONNX_EXPORT_INTERNAL_H

#include "ir/ir_internal.h"

#include "onnx.pb-c.h"

/* At most so many ONNX nodes and initializers for one IR node. */
enum { NAS__ONNX_NODES_PER_NODE = 11, NAS__ONNX_TENSORS_PER_NODE = 8 };
#define NAS__ONNX_CODES "/codes" /* after the name of a value or a param: its integers */

/* A failed allocation is remembered here, so that message parts are built without a check per line. */
typedef struct nas__onnx_writer {
    nas_ctx *ctx;
    nas_arena *arena;
    const nas_graph *g;
    bool quantized; /* with QuantizeLinear and DequantizeLinear */
    nas_status status;
    Onnx__GraphProto *graph; /* its lists have room for every node */
} nas__onnx_writer;

/* Zeroed memory and text a + b; NULL once something failed. */
void *nas__onnx_take(nas__onnx_writer *w, size_t n, size_t size);
char *nas__onnx_text(nas__onnx_writer *w, const char *a, const char *b);
/* nas__onnx_export_node - appends what node `v` becomes; its value carries the name of the node. */
void nas__onnx_export_node(nas__onnx_writer *w, const nas_node *node);

/* ---- onnx_export_ops.c: parts; NULL once something failed ---- */

/* nas__onnx_put_node - one ONNX node; it and its value are called name + suffix. */
Onnx__NodeProto *nas__onnx_put_node(nas__onnx_writer *w, const char *name, const char *suffix,
                                    const char *op_type, size_t n, const char *const *inputs);
void nas__onnx_put_int(nas__onnx_writer *w, Onnx__NodeProto *proto, const char *name,
                       int64_t value);
/* nas__onnx_put_floats, nas__onnx_put_codes - an initializer name + suffix of rank 1 (is_list) or 0; its name. type: of one, four
 * or eight bytes, integers. */
const char *nas__onnx_put_floats(nas__onnx_writer *w, const char *name, const char *suffix,
                                 bool is_list, const float *values, size_t n);
const char *nas__onnx_put_codes(nas__onnx_writer *w, const char *name, const char *suffix,
                                Onnx__TensorProto__DataType type, bool is_list,
                                const int32_t *values, size_t n);

/* ---- onnx_export_quant.c: all of them do nothing in a file of floats ---- */

/* nas__onnx_raw_suffix - what follows the name of a node in the name of the value that it computes: "" but for the network's
 * output, whose name belongs to what DequantizeLinear makes of it. */
const char *nas__onnx_raw_suffix(const nas__onnx_writer *w, const nas_node *node);
/* nas__onnx_stored_name - the value that readers of a node take. */
const char *nas__onnx_stored_name(nas__onnx_writer *w, const nas_node *node);
/* nas__onnx_weight_codes - of a convolution whose weights are integers: their codes in the order of the param, for the caller
 * to write as "<param>/codes"; the DequantizeLinear with a scale for each channel along `axis` is appended. NULL: floats. */
const int8_t *nas__onnx_weight_codes(nas__onnx_writer *w, const nas_node *node, int64_t axis);
/* nas__onnx_bias_codes - appends the int32 codes of a bias and their DequantizeLinear; false: it has to be floats. */
bool nas__onnx_bias_codes(nas__onnx_writer *w, const nas_node *node);
/* nas__onnx_export_quant - appends the pair behind a value that is stored as codes. */
void nas__onnx_export_quant(nas__onnx_writer *w, const nas_node *node);

#endif
