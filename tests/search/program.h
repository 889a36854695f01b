/* program.h - running nas-search and nas-query from a test: in a fresh folder, to the end or killed on the way. */
#ifndef NAS_TESTS_SEARCH_PROGRAM_H
#define NAS_TESTS_SEARCH_PROGRAM_H

#include "core/core.h"

enum { PROGRAM_ARGS_MAX = 64 };

/* test_bin - path of a program under test, from NAS_BIN_DIR (set by make). */
void test_bin(const char *name, char out[512]);
/* test_folder - makes and names a fresh temporary folder. */
void test_folder(char out[128]);
/* test_run - runs `program` with a NULL-terminated list of arguments to its end. */
nas_process_result test_run(nas_ctx *ctx, const char *program, const char *const *args);
/* test_small_study - runs nas-search in folder/name on a config of classifiers, with as little work as shows anything, five
 * proposals and a simulated device. less, more: further keys, NULL-terminated; what begins with "--" is passed as it is. */
nas_process_result test_small_study(nas_ctx *ctx, const char *folder, const char *config,
                                    const char *name, const char *const *less,
                                    const char *const *more);
/* test_exists - is there a file folder/name? */
bool test_exists(const char *folder, const char *name);
/* test_query - what nas-query prints for `sql` on the study folder/name, values alone; freed by nas_free. Asserts that it
 * succeeds. */
char *test_query(nas_ctx *ctx, const char *folder, const char *name, const char *sql);
/* test_ask - the same as a number: 0 where nothing was found. */
double test_ask(nas_ctx *ctx, const char *folder, const char *name, const char *sql);
/* test_compile_best - nas-compile makes a C bundle of the chosen network and its recipe; asserts that it succeeds. */
void test_compile_best(nas_ctx *ctx, const char *folder, const char *name);
/* test_run_killed - starts it and sends `signal_number` after `after_ms`; true when it was still running then.
 * *exit_code: as from a shell (128 + signal). */
bool test_run_killed(const char *program, const char *const *args, int64_t after_ms,
                     int signal_number, int *exit_code);

#endif
