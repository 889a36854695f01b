/* core.h - what every module stands on: status and context, logging, memory, arenas, text buffers,
 * checked integers, random streams, hashing, files, child processes, JSON writing, a parallel loop.
 *
 * Layer 0: includes libc/POSIX only, so that the device agent and emitted programs cross-compile anywhere.
 * A function that can fail takes `nas_ctx *ctx` first, returns nas_status and writes its outputs only on NAS_OK;
 * the message of the failure is in the context. */
#ifndef NAS_CORE_CORE_H
#define NAS_CORE_CORE_H

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAS_VERSION "0.1.0"

/* ---- status and context ------------------------------------------------------------------------------------ */

typedef enum nas_status {
#define NAS_STATUS(code, text) NAS_##code,
#include "core/status.def"
#undef NAS_STATUS
} nas_status;

/* nas_status_text - the fixed English text of a status code ("out of range"). */
const char *nas_status_text(nas_status status);

/* Process exit codes shared by all programs. */
enum {
    NAS_EXIT_OK = 0,
    NAS_EXIT_FAILED = 1,
    NAS_EXIT_USAGE = 2,        /* command line or config */
    NAS_EXIT_INFEASIBLE = 3,   /* finished, nothing satisfies the constraints */
    NAS_EXIT_DEVICE = 4,       /* device or agent unavailable */
    NAS_EXIT_INTERRUPTED = 130 /* interrupted, resumable */
};

/* nas_exit_code - the exit code a program ends with after `status` (DEVICE and NET give 4, CANCELLED 130, ...). */
int nas_exit_code(nas_status status);

typedef enum nas_log_level {
    NAS_LOG_ERROR,
    NAS_LOG_WARN,
    NAS_LOG_INFO,
    NAS_LOG_DEBUG
} nas_log_level;

/* One call context: last error message, log sink, cancel flag. Belongs to one thread at a time. */
typedef struct nas_ctx nas_ctx;

/* nas_log_sink - receives one finished line without newline; `user` is what was given with it. */
typedef void (*nas_log_sink)(void *user, nas_log_level level, const char *line);

nas_ctx *nas_ctx_new(void); /* NULL when out of memory */
void nas_ctx_free(nas_ctx *ctx);
/* nas_ctx_child - a context for another thread: same sink, level and cancel flag, own message. NULL on no memory. */
nas_ctx *nas_ctx_child(const nas_ctx *parent);
/* nas_ctx_message - text of the last failure, "" when none; borrowed until the next failure on ctx. */
const char *nas_ctx_message(const nas_ctx *ctx);
nas_status nas_ctx_status(const nas_ctx *ctx); /* code of the last failure */
void nas_ctx_clear(nas_ctx *ctx);
void nas_ctx_set_log(nas_ctx *ctx, nas_log_sink sink, void *user, nas_log_level level);
/* nas_ctx_set_cancel - long work polls *flag (set by a signal handler) and returns NAS_ERR_CANCELLED. */
void nas_ctx_set_cancel(nas_ctx *ctx, const volatile sig_atomic_t *flag);
bool nas_ctx_cancelled(const nas_ctx *ctx); /* false for NULL */
/* nas_check_cancel - NAS_ERR_CANCELLED with a message when the flag is set, else NAS_OK. */
nas_status nas_check_cancel(nas_ctx *ctx);

nas_status nas_fail_at(nas_ctx *ctx, nas_status status, const char *file, int line,
                       const char *format, ...) __attribute__((format(printf, 5, 6)));
/* nas_fail - records code, message and place; returns `status` so that it can be returned at once.
 * The message names the object, the value seen, the limit and what to do. */
#define nas_fail(ctx, status, ...) nas_fail_at((ctx), (status), __FILE__, __LINE__, __VA_ARGS__)

/* nas_wrap - puts "text: " before the recorded message, keeps the code; returns `status`. No-op for NAS_OK. */
nas_status nas_wrap(nas_ctx *ctx, nas_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* nas_log - one line to the sink (stderr by default): "event key=value ...". */
void nas_log(nas_ctx *ctx, nas_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* nas_alloc_array - n * size zeroed bytes; non-NULL for n = 0; NULL with a message on overflow or no memory. */
void *nas_alloc_array(nas_ctx *ctx, size_t n, size_t size);
/* nas_alloc_aligned - the same, aligned to `align` bytes (a power of two >= 8); freed by nas_free. */
void *nas_alloc_aligned(nas_ctx *ctx, size_t n, size_t size, size_t align);
/* nas_grow - makes room for `need` elements in *data (capacity *cap elements); new room is zeroed.
 * On failure *data and *cap are unchanged. */
nas_status nas_grow(nas_ctx *ctx, void *data_pp, size_t *cap, size_t need, size_t size);
void nas_free(void *p);
char *nas_strdup(nas_ctx *ctx, const char *text); /* NULL with message on failure */

/* Test hooks: the n-th allocation from now fails (0 = off); number of live blocks. Thread-safe. */
void nas_mem_fail_after(long n);
long nas_mem_live(void);

typedef struct nas_arena nas_arena;
nas_arena *nas_arena_new(nas_ctx *ctx, size_t block_bytes); /* NULL with message */
void nas_arena_free(nas_arena *arena);
void *nas_arena_alloc(nas_ctx *ctx, nas_arena *arena, size_t n,
                      size_t size); /* zeroed, 64-byte aligned */
char *nas_arena_printf(nas_ctx *ctx, nas_arena *arena, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- checked integers ---------------------------------------------------------------------------------------- */

nas_status nas_mul_size(nas_ctx *ctx, size_t a, size_t b, size_t *out);
nas_status nas_add_size(nas_ctx *ctx, size_t a, size_t b, size_t *out);
/* nas_parse_i64/double - whole text must be one number in [lo, hi]; PARSE or RANGE otherwise; `what` names it. */
nas_status nas_parse_i64(nas_ctx *ctx, const char *what, const char *text, int64_t lo, int64_t hi,
                         int64_t *out);
nas_status nas_parse_double(nas_ctx *ctx, const char *what, const char *text, double lo, double hi,
                            double *out);

/* ---- growing text/byte buffer -------------------------------------------------------------------------------- */

/* {0} is a valid empty buffer. data is NUL-terminated whenever it is non-NULL; len excludes the NUL. */
typedef struct nas_buf {
    char *data;
    size_t len;
    size_t cap;
    bool failed; /* an append ran out of memory: checked once at the end by nas_buf_status */
} nas_buf;

void nas_buf_deinit(nas_buf *buf);
void nas_buf_clear(nas_buf *buf); /* keeps the memory */
/* Appends; on no memory they set `failed` and drop the text, so that writers need no check per line. */
void nas_buf_append(nas_buf *buf, const void *data, size_t len);
void nas_buf_puts(nas_buf *buf, const char *text);
void nas_buf_printf(nas_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void nas_buf_vprintf(nas_buf *buf, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
nas_status nas_buf_status(nas_ctx *ctx, const nas_buf *buf); /* NOMEM when an append failed */

/* ---- random streams ------------------------------------------------------------------------------------------ */

/* xoshiro256** (Blackman & Vigna, arXiv:1805.01407), seeded by SplitMix64 over (seed, trial, purpose).
 * Plain data: copying or storing the four words saves the stream. */
typedef struct nas_rng {
    uint64_t s[4];
} nas_rng;

nas_rng nas_rng_stream(uint64_t seed, uint64_t trial, const char *purpose);
uint64_t nas_rng_u64(nas_rng *rng);
uint32_t nas_rng_below(nas_rng *rng, uint32_t n); /* uniform in [0, n), n >= 1, unbiased */
double nas_rng_uniform(nas_rng *rng);             /* [0, 1), 53 bits */
double nas_rng_normal(nas_rng *rng);              /* mean 0, sd 1 */

/* ---- SHA-256, HMAC-SHA-256 (FIPS 180-4, RFC 2104) ------------------------------------------------------------- */

enum { NAS_SHA256_BYTES = 32, NAS_SHA256_HEX = 65 /* with NUL */ };

typedef struct nas_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
} nas_sha256;

void nas_sha256_init(nas_sha256 *h);
void nas_sha256_update(nas_sha256 *h, const void *data, size_t len);
void nas_sha256_final(nas_sha256 *h, uint8_t out[NAS_SHA256_BYTES]);
void nas_sha256_bytes(const void *data, size_t len, uint8_t out[NAS_SHA256_BYTES]);
void nas_sha256_hex(const void *data, size_t len, char out[NAS_SHA256_HEX]);
nas_status nas_sha256_file_hex(nas_ctx *ctx, const char *path, char out[NAS_SHA256_HEX]);
void nas_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                     uint8_t out[NAS_SHA256_BYTES]);
void nas_hex(const void *data, size_t len, char *out); /* 2*len chars + NUL, lower case */
bool nas_unhex(const char *text, size_t len_bytes,
               uint8_t *out); /* false when not exactly 2*len hex digits */
bool nas_equal_constant_time(const void *a, const void *b, size_t len);
nas_status nas_random_bytes(nas_ctx *ctx, void *out,
                            size_t len); /* for keys and nonces only, never for results */

/* ---- time and files ------------------------------------------------------------------------------------------ */

int64_t nas_now_ns(void);       /* monotonic */
int64_t nas_unix_time_ms(void); /* for records, never for results */

/* nas_file_read - whole file into a fresh buffer (caller deinits); RANGE when larger than max_bytes. */
nas_status nas_file_read(nas_ctx *ctx, const char *path, size_t max_bytes, nas_buf *out);
/* nas_file_write - temp file in the same folder, fsync, rename: the old or the new content, never a torn one. */
nas_status nas_file_write(nas_ctx *ctx, const char *path, const void *data, size_t len,
                          unsigned mode);
bool nas_file_exists(const char *path);
nas_status nas_mkdirs(nas_ctx *ctx, const char *path); /* like mkdir -p */
nas_status nas_disk_free_bytes(nas_ctx *ctx, const char *path, uint64_t *out);
nas_status nas_remove_tree(nas_ctx *ctx, const char *path); /* never follows links */

/* ---- child processes ----------------------------------------------------------------------------------------- */

typedef struct nas_process_options {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *envp; /* NULL-terminated; NULL = inherit */
    const char *cwd;         /* NULL = inherit */
    int64_t timeout_ms;      /* > 0; the whole process group is killed then */
    size_t max_output_bytes; /* each of stdout and stderr; more is read and dropped */
    bool no_cancel;          /* do not end it when ctx is cancelled */
} nas_process_options;

typedef struct nas_process_result {
    int exit_code; /* 0..255, -1 when killed by a signal */
    int signal;    /* 0 when it exited */
    bool timed_out;
    double wall_s;
    nas_buf out, err; /* caller deinits through nas_process_result_deinit */
} nas_process_result;

nas_process_options
nas_process_options_default(void); /* argv NULL, 60 s, 1 MiB, own process group */
/* nas_process_run - runs to the end. NAS_OK even for a non-zero exit; NOTFOUND when argv[0] does not exist,
 * TIMEOUT and CANCELLED after killing the group. */
nas_status nas_process_run(nas_ctx *ctx, const nas_process_options *options,
                           nas_process_result *result);
void nas_process_result_deinit(nas_process_result *result);

/* ---- JSON writer (RFC 8259) ---------------------------------------------------------------------------------- */

/* Writes into a buffer; inserts commas; doubles round-trip (17 digits); NaN and Inf become null. */
typedef struct nas_json {
    nas_buf *out;
    int depth;
    bool need_comma;
} nas_json;

nas_json nas_json_begin(nas_buf *out);
void nas_json_object(nas_json *j);
void nas_json_object_end(nas_json *j);
void nas_json_array(nas_json *j);
void nas_json_array_end(nas_json *j);
void nas_json_key(nas_json *j, const char *key);
void nas_json_string(nas_json *j, const char *value); /* NULL writes null */
void nas_json_int(nas_json *j, int64_t value);
void nas_json_double(nas_json *j, double value);
void nas_json_bool(nas_json *j, bool value);
void nas_json_null(nas_json *j);
void nas_json_raw(nas_json *j, const char *json_text); /* an already valid JSON value */

/* ---- parallel loop ------------------------------------------------------------------------------------------- */

/* nas_parallel_fn - item `index` in [0, n) on worker `worker` in [0, threads); own context. */
typedef nas_status (*nas_parallel_fn)(nas_ctx *ctx, void *arg, size_t index, int worker);
/* nas_parallel - runs fn for every index on `threads` threads (1 = in the caller); items are taken in order.
 * On failures the message and status of the lowest failing index are reported; items not yet begun are skipped. */
nas_status nas_parallel(nas_ctx *ctx, int threads, size_t n, nas_parallel_fn fn, void *arg);
int nas_cpu_count(void); /* CPUs this process may use, >= 1 */

#endif
