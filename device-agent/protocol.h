/* protocol.h - the wire between controller and agent, and between agent and a timed program. Version 1.
 *
 * The agent is remote code execution by design, therefore: loopback or a local socket only, shared 32-byte key, every request and every
 * answer signed, artifacts checked by SHA-256, each run in a limited child with a deadline.
 *
 * HTTP/1.1 over TCP on 127.0.0.1, one connection may carry many requests. Limits below. All JSON is UTF-8.
 *   GET  /v1/nonce             (unsigned) -> {"nonce": <32 hex>}: a fresh nonce for this connection; counter restarts
 *   GET  /v1/info              -> agent version, host, CPU, features, governor, limits active; see doctor
 *   PUT  /v1/blob/<sha256>     body = bytes; 201 stored, 200 already there, 422 when the hash differs, 507 disk full
 *   HEAD-like check: GET /v1/blob/<sha256> -> 200 {"present": true} or 404
 *   POST /v1/run?blob=<sha256>&deadline_ms=N&<bench option>=<value>...   -> 202 {"id": N} or 409 when busy;
 *                              404 when the blob is not there, 400 for an option that is unknown, twice or no number.
 *                              Bench options carry the names below without "--": threads=2&cpus=0,1&min-batches=30
 *                              cpus may be "big" (the fastest cluster, and slower ones until every thread has a CPU) or
 *                              "little" (from the slowest up). deadline_ms is the program's, at most 120000, and
 *                              sustained-s more with that option. What the agent does around the program:
 *                                gate-ms=N       wait at most so long (60000; 0 = no gate) until the CPU is within 5 C of
 *                                                its idle temperature; else the run fails with reason too_hot
 *                                max-celsius=C   and below C
 *                                frequency=max | MHZ,MHZ..   one value a cluster from the smallest to the largest: clocks
 *                                                are pinned where permitted, read back, and put back afterwards
 *                                idle-ms=N       measure the power at rest first, where power is shown
 *   GET  /v1/run/<id>          -> {"id","state":"running"|"done"|"failed"|"killed", "exit_code","signal","error",
 *                                  "stderr", "wall_s", "before":{..},"after":{..} (frequency, temperature, governor,
 *                                  load probes), "limits":[active limits], "bench":{the program's JSON document},
 *                                  "phase":"cooling"|"idle_power"|"program"|"over", "reason": a word for "error": too_hot,
 *                                  deadline, killed, abandoned, lease, crash, memory, cpu_time, file_size, sandbox, exec,
 *                                  exit, output, agent,
 *                                  "gate":{"zone","celsius","idle_celsius","limit_celsius","waited_ms"} or
 *                                  {"unavailable": why}, "cpus":{"asked","list"}, "frequency":{"asked","pinned",
 *                                  "unavailable": why not, "policies":[{"cpus","asked_khz","min_khz","max_khz" (read
 *                                  back),"current_khz"}]}, "idle_w", "sys_root" (only when the agent was started with
 *                                  --sys-root: conditions are then not this machine's)}
 *                              exit_code, signal, error, after and bench are absent while unknown.
 *                              ?wait_ms=N (at most 60000) holds the answer until the run has ended or N ms have
 *                              passed, so that a waiting controller leaves the CPUs alone.
 *   DELETE /v1/run/<id>        -> kills it
 *   POST /v1/session?holder=NAME[&lease_ms=N]  -> 201 {"session": <32 hex>, "lease_ms"}; 409 {"error","holder",
 *                              "lease_left_ms"} while another controller holds the agent. One controller at a time: while
 *                              a session is active, PUT blob, POST run, GET and DELETE run need session=<32 hex> in
 *                              their query (409 without it, 410 when that session ended) and renew its lease (1000 to
 *                              3600000 ms, default 60000). A session ends by its lease or by
 *   DELETE /v1/session/<32 hex>   and with it the run begun in it. Without an active session nothing is needed.
 *   GET  /v1/log               -> {"log": the last lines of the log file, null when there is none}
 *   POST /v1/stop              -> answers, then the agent ends (session or not)
 * A run is killed when for abandon_ms (20 s) no signed request has come and no answer is held: its controller is gone.
 * Errors: {"error": "<message>"} with 400, 401 (signature), 404, 409, 410, 411, 413 (too large), 422, 500, 503, 507.
 * The last run alone is kept; older ids give 404. Names in paths and queries are [A-Za-z0-9._,/-]; no %-escapes.
 *
 * Signing: headers  X-Nas-Counter: <decimal, strictly rising on a connection, from 1>  and  X-Nas-Mac: <64 hex> with
 *   mac = HMAC-SHA256(key, method "\n" target "\n" hex(sha256(body)) "\n" nonce "\n" counter)
 * and the answer carries  X-Nas-Mac = HMAC-SHA256(key, request-mac-hex "\n" status "\n" hex(sha256(body))).
 * Hex is lower case; nonce and request-mac enter as hex text. Compared in constant time. An answer to a request that
 * was not authenticated (nonce, 400 of a broken head, 401, 411, 413, 503) carries no mac: believe nothing it says.
 *
 * Layer 1: includes core only. */
#ifndef NAS_DEVICE_AGENT_PROTOCOL_H
#define NAS_DEVICE_AGENT_PROTOCOL_H

#include "core/core.h"

enum {
    NAS_AGENT_PROTOCOL = 1,
    NAS_AGENT_KEY_BYTES = 32,
    NAS_AGENT_NONCE_BYTES = 16,
    NAS_AGENT_HEADER_MAX = 8 * 1024,
    NAS_AGENT_BODY_MAX = 64 * 1024 * 1024,
    NAS_AGENT_CONNECTIONS_MAX = 4,
    NAS_AGENT_IDLE_MS = 10 * 1000,
    NAS_AGENT_WAIT_MS_MAX = 60 * 1000,
    NAS_AGENT_RUN_MS_MAX = 120 * 1000,
    NAS_AGENT_LEASE_MS = 60 * 1000, /* of a session, without another wish */
    NAS_AGENT_LEASE_MS_MIN = 1000,
    NAS_AGENT_LEASE_MS_MAX = 3600 * 1000,
    NAS_AGENT_ABANDON_MS = 20 * 1000, /* a run nobody has asked for so long is killed */
    NAS_AGENT_LOG_MAX = 128 * 1024,
    NAS_AGENT_GATE_MS =
        60 * 1000, /* how long a run waits for a cool device, without another wish */
    NAS_AGENT_GATE_MS_MAX = 600 * 1000,
    NAS_AGENT_IDLE_POWER_MS_MAX = 60 * 1000,
    NAS_AGENT_SUSTAINED_S_MAX = 3600
};

/* Start of a private local agent by a controller:
 *   nas-agent serve --listen 127.0.0.1:0 --key-file FILE --cache-dir DIR --parent-pid PID
 * FILE: mode 0600, 64 hex digits. First stdout line: "nas-agent listening 127.0.0.1:PORT protocol 1 pid PID". It ends when
 * its parent process does (PDEATHSIG wakes it, getppid decides: the end of one thread of the parent is survived) or
 * on /v1/stop.
 *
 * Start over adb:  nas-agent serve --detach --listen @NAME --key-file FILE --cache-dir DIR --log-file LOG
 *                  --state-file STATE
 * returns 0 after the first line ("nas-agent listening @NAME protocol 1 pid PID", also in STATE, mode 0600) and lives
 * on in a session of its own, without terminal; an error goes to stderr and the exit code. @NAME (or
 * unix-abstract:NAME) is an abstract unix socket, /PATH one in the file system: by SO_PEERCRED only root, Android's
 * shell and the agent's own user get a connection. LOG is bounded: at most LOG and LOG.1 of 128 KB. */

/* The measuring loop inside the timed program (compiler/rt/bench_main.c):
 *   --bench  --threads N  --cpus LIST ("0,1" or "0-3"; "" = no pinning)
 *   --min-batches N (30)  --min-time-ms N (500)  --max-time-ms N (10000)  --batch-ms N (1)
 *   --warmup-runs N (3)   --warmup-ms N (200)    --warmup-cap-ms N (2000)
 *   --sustained-s N (0)   back to back for N s instead; the batches of the last third are the samples
 *   --profile             afterwards the time of each layer, medians over 31 runs; over the wire profile=1
 * and from the agent, never over the wire, where it found them: --temperature FILE --rapl DIR.. --battery DIR
 * --idle-mw N --sys-root DIR.
 * Pinning: the process is confined to LIST; when LIST has an entry for every thread, thread i (the main thread first,
 * then workers in order of creation) is pinned to entry i.
 * A batch of k inferences lasts >= batch-ms (k grows by max(target/t + 1, 1.618x)); a sample is batch time / k.
 * Batches in which a thread waited in the run queue for over 2 % of the time, in which the main thread was off the
 * CPU (preempted, or asleep because a worker was late) for 2 % more of the time than in the calmest batch, or off its
 * one pinned CPU, are disturbed and do not enter the statistics. (Involuntary switches are counted, but one that costs microseconds of a batch of
 * milliseconds is no disturbance, and kernel threads cause such switches all the time.) It stops when min-batches are kept and min-time-ms have passed, at the latest at max-time-ms; earlier, since the run is measured
 * again anyway, when after 2 min-time-ms over 30 % of 2 min-batches or over 50 % of 10 batches were disturbed. When not
 * one batch was undisturbed all of them are used (counted as kept and as dropped) and all_disturbed is true.
 * Printed document (one JSON object, times in us per inference):
 *   schema 1, name, graph_hash, threads, cpus_asked, cpus_effective [one mask a thread, "0-1"], init_us, first_us,
 *   warmup_runs, warmup_steady, batch_size, batches (kept), dropped, all_disturbed,
 *   samples_us [kept, in order, at most 1024: every n-th when there are more], p50_us, p50_lo_us, p50_hi_us
 *   (95 % interval of the median by order statistics; with fewer than 6 kept batches, where none exists, from the least
 *   kept to the longest of all, disturbed ones included), p90_us, p10_us, min_us, mad_us, wall_s,
 *   involuntary_switches, migrations, peak_rss_bytes, mhz_before, mhz_after (absent when unknown),
 *   mode "burst"|"sustained", batch_log {every, us, mhz, celsius, wait_us, switches, migrated, kept: of every n-th batch,
 *   at most 64}, mhz_min, mhz_max, celsius_max (while it was timed),
 *   layers [{name, p50_us}] (with --profile),
 *   energy {source "rapl"|"battery", coarse, joules, seconds, idle_w, mj_per_inference, minus_idle} (a battery's only over
 *   30 s and more), sustained {seconds, rate_per_s over the last third, first_third_rate_per_s, curve of at most 120
 *   {t_s, us, mhz, celsius}}. */

/* ---- signing: used by both ends -------------------------------------------------------------------------------- */

/* nas_agent_sign_request - the mac of a request, as in "Signing" above.
 * method "GET", target "/v1/info" as sent (with query), body may be NULL for len 0, nonce 32 hex digits. */
void nas_agent_sign_request(const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                            const char *target, const void *body, size_t len, const char *nonce,
                            uint64_t counter, char mac[NAS_SHA256_HEX]);
/* nas_agent_sign_answer - the mac of an answer; `request_mac` is the 64 hex digits of the request's. */
void nas_agent_sign_answer(const uint8_t key[NAS_AGENT_KEY_BYTES], const char *request_mac,
                           int http_status, const void *body, size_t len, char mac[NAS_SHA256_HEX]);
/* nas_agent_key_read - reads a key file. INVALID when others may read it or it is not 64 hex digits; NOTFOUND, IO. */
nas_status nas_agent_key_read(nas_ctx *ctx, const char *path, uint8_t key[NAS_AGENT_KEY_BYTES]);
/* nas_agent_key_create - makes a random key and writes it with mode 0600. */
nas_status nas_agent_key_create(nas_ctx *ctx, const char *path, uint8_t key[NAS_AGENT_KEY_BYTES]);

#endif
