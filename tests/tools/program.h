/* program.h - starting the programs of tools/ from a test, as people do. */
#ifndef NAS_TESTS_TOOLS_PROGRAM_H
#define NAS_TESTS_TOOLS_PROGRAM_H

#include "core/core.h"

/* tool_program - path of a program under test, from NAS_BIN_DIR (set by make); asserts that it is built. */
void tool_program(const char *name, char out[4096]);
/* tool_shell - runs `line` with sh in `folder`: $P is nas-compile, $C puts its cache into the folder. Exit code; both streams
 * in `out`, what was there before is gone. */
int tool_shell(nas_ctx *ctx, const char *folder, const char *line, nas_buf *out);
/* tool_expect - the same, and asserts the exit code and that the streams contain `text`. */
void tool_expect(nas_ctx *ctx, const char *folder, const char *line, int code, const char *text);

#endif
