/* tile_registers.h - which of the 8 tile registers of x86 holds what, and the text of their configuration.
 *
 * Sums come first, units * vectors of them, then the operand with fewer tiles, which stays for a step; tiles of the other one
 * take turns in what is left. */
#ifndef NAS_COMPILER_TILE_REGISTERS_H
#define NAS_COMPILER_TILE_REGISTERS_H

#include "core/core.h"

enum {
    NAS__TILE_REGISTERS = 8,
    NAS__TILE_ROWS = 16,
    NAS__TILE_LINE = 64 /* most bytes of a row */
};

typedef struct nas__tiles {
    int32_t vectors, stay, turn, turns; /* turn: the first register of those */
    bool pixels;                        /* stay */
} nas__tiles;

/* nas__tiles_of - of the largest tile of a kernel: `units` tiles of pixels by `vectors` of outputs; both and the sums leave one
 * register at least. */
nas__tiles nas__tiles_of(int32_t units, int32_t vectors);
/* nas__tiles_register - of tile k of an operand. */
int32_t nas__tiles_register(const nas__tiles *t, bool pixels, int32_t k);

/* Operands of a step (a tile whose sum registers are [0, n)): the order in which tiles are loaded and multiplied. `load` and
 * `multiply` write text; the latter multiplies pixels i and outputs v. */
typedef struct nas__tiles_text {
    void (*load)(const void *arg, bool pixels, int32_t k, int32_t into, nas_buf *out);
    void (*multiply)(const void *arg, int32_t sum, int32_t pixels, int32_t outputs, nas_buf *out);
} nas__tiles_text;
void nas__tiles_step(const nas__tiles *t, const nas__tiles_text *text, const void *arg,
                     int32_t units, int32_t vectors, nas_buf *out);

/* nas__tiles_config - `NAME_tiles`, rows and bytes of a row of each register. */
void nas__tiles_config(const char *name, const uint8_t rows[NAS__TILE_REGISTERS],
                       const uint8_t bytes[NAS__TILE_REGISTERS], nas_buf *out);

#endif
