/* fuzz_routes.c - libFuzzer target: a controller that has the key and sends anything. The bytes are requests one after
 * another ("GET /v1/run/1?session=... HTTP/1.1\r\n\r\n"), carried out by one agent; every answer must be a JSON object
 * with a known status. No program is ever there to be run. */
#include "device-agent/agent_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REQUESTS_MAX = 32 };

static nas__agent agent;
static nas__agent_options options;
static char folder[] = "/tmp/nas-fuzz-XXXXXX";

static void remove_folder(void) {
    (void)nas_remove_tree(NULL, folder);
}

static void begin(void) {
    agent.ctx = nas_ctx_new();
    if (agent.ctx == NULL || mkdtemp(folder) == NULL) abort();
    (void)atexit(remove_folder);
    nas_ctx_set_log(agent.ctx, NULL, NULL, NAS_LOG_ERROR);
    options = (nas__agent_options){.cache_dir = folder, .abandon_ms = NAS_AGENT_ABANDON_MS};
    agent.o = &options;
    agent.job = (nas__job){.out_fd = -1, .err_fd = -1};
    if (nas__blobs_init(agent.ctx, &agent.blobs, folder, 1 << 20) != NAS_OK) abort();
    nas_buf_puts(&agent.machine, "{\"cpu\":{}}");
}

static bool known(int status) {
    static const int all[] = {200, 201, 202, 400, 404, 409, 410, 422, 500, 507};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i] == status) return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    char hash[NAS_SHA256_HEX];
    if (agent.ctx == NULL) begin();
    agent.session = (nas__session){0};
    for (int i = 0; i < REQUESTS_MAX && size > 0; i++) {
        nas__http_request r;
        if (nas__http_parse(text, size, &r) != NAS__HTTP_OK) break;
        const size_t left = size - r.head_bytes;
        const size_t body = r.content_length < left ? (size_t)r.content_length : left;
        nas__answer answer = {0};
        if (r.content_length > nas__route_body_max(&r)) break;
        nas_sha256_hex(body > 0 ? text + r.head_bytes : "", body, hash);
        nas__route(&agent, &r, text + r.head_bytes, body, hash, &answer);
        if (!answer.hold &&
            (!known(answer.status) || !nas__json_object_ok(answer.body.data, answer.body.len)))
            abort();
        if (nas__job_runs(&agent.job)) abort();
        nas_buf_deinit(&answer.body);
        text += r.head_bytes + body;
        size -= r.head_bytes + body;
    }
    return 0;
}
