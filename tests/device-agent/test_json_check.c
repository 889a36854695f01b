/* test_json_check.c - which program outputs the agent may embed in its answer. */
#include "device-agent/agent_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static bool check(const char *text, size_t len) {
    char *exact = nas_alloc_array(
        NULL, len, 1); /* exactly this size: the sanitizer sees the first byte too far */
    memcpy(exact, text, len);
    const bool ok = nas__json_object_ok(exact, len);
    nas_free(exact);
    return ok;
}

Test(device_agent_json_check, objects_pass) {
    static const char *const rows[] = {
        "{}",
        " {\"a\": 1} \n",
        "{\"a\":[1,-0.5e+3,true,false,null,{\"b\":\"\\u00e9\\n\"}]}",
        "{\"\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"}",
        "{\"a\":0,\"b\":1e9,\"c\":[[]]}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_assert(check(rows[i], strlen(rows[i])), "%s", rows[i]);
}

Test(device_agent_json_check, everything_else_is_refused) {
    static const char *const rows[] = {
        "",
        "[]",
        "1",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "{\"a\":[1,]}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":nan}",
        "{\"a\":nul}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"open}",
        "{\"a\":\"\xc3\"}",
        "{\"a\":\"\xc0\x80\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\\",
        "{\"a\":\"\\u12",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(not(check(rows[i], strlen(rows[i]))), "%s", rows[i]);
    }
    cr_assert(not(check("{}\0", 3)));
}

Test(device_agent_json_check, nesting_is_bounded) {
    char deep[2 * NAS__JSON_DEPTH_MAX + 16] = "{\"a\":";
    size_t n = strlen(deep);
    for (int i = 0; i < NAS__JSON_DEPTH_MAX - 1; i++)
        deep[n++] = '[';
    for (int i = 0; i < NAS__JSON_DEPTH_MAX - 1; i++)
        deep[n++] = ']';
    deep[n++] = '}';
    cr_assert(check(deep, n));
    char deeper[2 * NAS__JSON_DEPTH_MAX + 16] = "{\"a\":";
    n = strlen(deeper);
    for (int i = 0; i < NAS__JSON_DEPTH_MAX; i++)
        deeper[n++] = '[';
    for (int i = 0; i < NAS__JSON_DEPTH_MAX; i++)
        deeper[n++] = ']';
    deeper[n++] = '}';
    cr_assert(not(check(deeper, n)));
}
