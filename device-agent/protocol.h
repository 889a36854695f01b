/* protocol.h - the wire between controller and agent, and between agent and a timed program. Version 1.
 *
 * The agent is remote code execution by design, therefore: loopback only, shared 32-byte key, every request and every
 * answer signed, artifacts checked by SHA-256, each run in a limited child with a deadline.
 *
 * HTTP/1.1 over TCP on 127.0.0.1, one connection may carry many requests. Limits below. All JSON is UTF-8.
 *   GET  /v1/nonce             (unsigned) -> {"nonce": <32 hex>}: a fresh nonce for this connection; counter restarts
 *   GET  /v1/info              -> agent version, host, CPU, features, governor, limits active; see doctor
 *   PUT  /v1/blob/<sha256>     body = bytes; 201 stored, 200 already there, 422 when the hash differs, 507 disk full
 *   HEAD-like check: GET /v1/blob/<sha256> -> 200 {"present": true} or 404
 *   POST /v1/run?blob=<sha256>&deadline_ms=N&<bench option>=<value>...   -> 202 {"id": N} or 409 when busy
 *   GET  /v1/run/<id>          -> {"id","state":"running"|"done"|"failed"|"killed", "exit_code","signal","error",
 *                                  "before":{..},"after":{..} (frequency, temperature, governor, load probes),
 *                                  "limits":[active limits], "bench":{the program's JSON document}}
 *   DELETE /v1/run/<id>        -> kills it
 *   POST /v1/stop              -> answers, then the agent ends
 * Errors: {"error": "<message>"} with 400, 401 (signature), 404, 409, 411, 413 (too large), 422, 500, 507.
 *
 * Signing: headers  X-Nas-Counter: <decimal, strictly rising on a connection>  and  X-Nas-Mac: <64 hex> with
 *   mac = HMAC-SHA256(key, method "\n" target "\n" hex(sha256(body)) "\n" nonce "\n" counter)
 * and the answer carries  X-Nas-Mac = HMAC-SHA256(key, request-mac-hex "\n" status "\n" hex(sha256(body))).
 * Compared in constant time.
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
    NAS_AGENT_RUN_MS_MAX = 120 * 1000
};

/* Start of a private local agent by a controller:
 *   nas-agent serve --listen 127.0.0.1:0 --key-file FILE --cache-dir DIR --parent-pid PID
 * FILE: mode 0600, 64 hex digits. First stdout line: "nas-agent listening 127.0.0.1:PORT protocol 1". It ends when
 * its parent does (PDEATHSIG) or on /v1/stop. */

/* The measuring loop inside the timed program (compiler/rt/bench_main.c):
 *   --bench  --threads N  --cpus LIST ("0,1": pin worker i to entry i; "" = no pinning)
 *   --min-batches N (30)  --min-time-ms N (500)  --max-time-ms N (10000)  --batch-ms N (1)
 *   --warmup-runs N (3)   --warmup-ms N (200)    --warmup-cap-ms N (2000)
 * A batch of k inferences lasts >= batch-ms (k grows by max(target/t + 1, 1.618x)); a sample is batch time / k.
 * Batches with involuntary context switches of the main thread, run-queue wait over 2 % or a CPU migration are marked
 * disturbed and do not enter the statistics. Printed document (one JSON object, times in us per inference):
 *   schema 1, name, graph_hash, threads, cpus_asked, cpus_effective, init_us, first_us, warmup_runs, warmup_steady,
 *   batch_size, batches (kept), dropped, samples_us [kept, in order, at most 1024], p50_us, p50_lo_us, p50_hi_us
 *   (95 % interval of the median by order statistics), p90_us, p10_us, min_us, mad_us, wall_s,
 *   involuntary_switches, migrations, peak_rss_bytes, mhz_before, mhz_after (absent when unknown). */

#endif
