#include "tests/tools/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tool_program(const char *name, char out[4096]) {
    const char *bin = getenv("NAS_BIN_DIR");
    (void)snprintf(out, 4096, "%s/%s", bin != NULL ? bin : "build/release/bin", name);
    cr_assert(nas_file_exists(out), "%s is not built (make check-tools builds it)", out);
}

int tool_shell(nas_ctx *ctx, const char *folder, const char *line, nas_buf *out) {
    char program[4096], script[16384], here[4096];
    tool_program("nas-compile", program);
    cr_assert(ne(ptr, getcwd(here, sizeof here), NULL));
    (void)snprintf(script, sizeof script, "P=%s%s%s; C='--cache %s/cache'; cd %s && { %s; } 2>&1",
                   program[0] == '/' ? "" : here, program[0] == '/' ? "" : "/", program, folder,
                   folder, line);
    const char *const argv[] = {"sh", "-c", script, NULL};
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    o.timeout_ms = 100 * 1000;
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), (int)NAS_OK), "%s", nas_ctx_message(ctx));
    nas_buf_clear(out);
    nas_buf_append(out, r.out.data, r.out.len);
    const int code = r.exit_code;
    nas_process_result_deinit(&r);
    return code;
}

void tool_expect(nas_ctx *ctx, const char *folder, const char *line, int code, const char *text) {
    nas_buf out = {0};
    const int got = tool_shell(ctx, folder, line, &out);
    cr_assert(eq(int, got, code), "%s: %s", line, out.data);
    cr_assert(ne(ptr, strstr(out.data != NULL ? out.data : "", text), NULL), "%s: '%s' lacks '%s'",
              line, out.data, text);
    nas_buf_deinit(&out);
}
