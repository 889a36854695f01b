/* latency_import_internal.h - shared by the parsers of measurement files. */
#ifndef NAS_TOOLS_LATENCY_IMPORT_INTERNAL_H
#define NAS_TOOLS_LATENCY_IMPORT_INTERNAL_H

#include "tools/latency_import.h"

double nas__unit_to_micro(nas_unit unit);
void nas__import_mistake(nas_import *import, size_t row, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
nas_status nas__import_add(nas_ctx *ctx, const nas_encoder *encoder, nas_import *import, size_t row,
                           const char *arch, double micro);

#endif
