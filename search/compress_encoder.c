/* compress_encoder.c - the graph encoder of "agmc" from one study to the next: runs/a/encoder.txt, search.encoder_from. */
#include "search/compress_internal.h"

#include <string.h>

enum { ENCODER_BYTES_MAX = 1 << 20 };

nas_status nas__comp_take_encoder(nas__comp *c) {
    const char *from = c->config->search.encoder_from;
    char copy[NAS__COMP_PATH_MAX];
    nas_buf text = {0};
    if (from[0] == '\0') return NAS_OK;
    nas_status status = nas__comp_path(c, "encoder_from.txt", copy);
    if (status != NAS_OK) return status;
    const bool again = nas_file_exists(copy);
    status = nas_file_read(c->ctx, again ? copy : from, ENCODER_BYTES_MAX, &text);
    if (status == NAS_OK) status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK)
        status = nas_strategy_encoder_read(c->ctx, c->strategy, text.data == NULL ? "" : text.data);
    if (status == NAS_OK && !again)
        status = nas_file_write(c->ctx, copy, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    return nas_wrap(c->ctx, status, "search.encoder_from %s", again ? copy : from);
}

nas_status nas__comp_put_encoder(nas__comp *c) {
    char path[NAS__COMP_PATH_MAX];
    nas_buf text = {0};
    if (strcmp(nas_strategy_name(c->strategy), "agmc") != 0) return NAS_OK;
    nas_status status = nas__comp_path(c, "encoder.txt", path);
    if (status == NAS_OK) status = nas_strategy_encoder_write(c->ctx, c->strategy, &text);
    if (status == NAS_OK) status = nas_file_write(c->ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    return nas_wrap(c->ctx, status, "the encoder of the search");
}
