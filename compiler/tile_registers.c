/* tile_registers.c - see tile_registers.h. */
#include "compiler/tile_registers.h"

nas__tiles nas__tiles_of(int32_t units, int32_t vectors) {
    nas__tiles t = {.vectors = vectors, .pixels = units <= vectors, .stay = units * vectors};
    t.turn = t.stay + (t.pixels ? units : vectors);
    t.turns = NAS__TILE_REGISTERS - t.turn;
    return t;
}

int32_t nas__tiles_register(const nas__tiles *t, bool pixels, int32_t k) {
    return pixels == t->pixels ? t->stay + k : t->turn + k % t->turns;
}

void nas__tiles_step(const nas__tiles *t, const nas__tiles_text *text, const void *arg,
                     int32_t units, int32_t vectors, nas_buf *out) {
    const int32_t held = t->pixels ? units : vectors, others = t->pixels ? vectors : units;
    for (int32_t h = 0; h < held; h++)
        text->load(arg, t->pixels, h, nas__tiles_register(t, t->pixels, h), out);
    for (int32_t k = 0; k < others; k++) {
        text->load(arg, !t->pixels, k, nas__tiles_register(t, !t->pixels, k), out);
        for (int32_t h = 0; h < held; h++) {
            const int32_t i = t->pixels ? h : k, v = t->pixels ? k : h;
            text->multiply(arg, i * t->vectors + v, nas__tiles_register(t, true, i),
                           nas__tiles_register(t, false, v), out);
        }
    }
}

void nas__tiles_config(const char *name, const uint8_t rows[NAS__TILE_REGISTERS],
                       const uint8_t bytes[NAS__TILE_REGISTERS], nas_buf *out) {
    uint8_t config[64] = {1}; /* palette 1; bytes of a row in 16 bits, then rows */
    for (int32_t t = 0; t < NAS__TILE_REGISTERS; t++) {
        config[16 + 2 * t] = bytes[t];
        config[48 + t] = rows[t];
    }
    nas_buf_printf(out, "static const unsigned char %s_tiles[64] __attribute__((aligned(64))) = {",
                   name);
    for (int32_t i = 0; i < 64; i++)
        nas_buf_printf(out, "%s%d", i > 0 ? ", " : "", config[i]);
    nas_buf_puts(out, "};\n");
}
