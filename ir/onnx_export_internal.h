/* onnx_export_internal.h - what the two files of the ONNX export share. Never leaves ir/.
 *
 * onnx_export.c writes graph and model, onnx_export_ops.c turns one IR node into ONNX nodes and initializers. The message
 * structures live in one arena for the length of an export. */
#ifndef NAS_IR_ONNX_EXPORT_INTERNAL_H
#define NAS_IR_ONNX_EXPORT_INTERNAL_H

#include "ir/ir_internal.h"

#include "onnx.pb-c.h"

/* At most so many ONNX nodes and initializers for one IR node. */
enum { NAS__ONNX_NODES_PER_NODE = 9, NAS__ONNX_TENSORS_PER_NODE = 5 };

/* A failed allocation is remembered here, so that message parts are built without a check per line. */
typedef struct nas__onnx_writer {
    nas_ctx *ctx;
    nas_arena *arena;
    const nas_graph *g;
    nas_status status;
    Onnx__GraphProto *graph; /* its lists have room for every node */
} nas__onnx_writer;

/* Zeroed memory and text a + b; NULL once something failed. */
void *nas__onnx_take(nas__onnx_writer *w, size_t n, size_t size);
char *nas__onnx_text(nas__onnx_writer *w, const char *a, const char *b);
/* nas__onnx_export_node - appends what node `v` becomes; its value carries the name of the node. */
void nas__onnx_export_node(nas__onnx_writer *w, const nas_node *node);

#endif
