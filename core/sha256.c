/* sha256.c - SHA-256 (FIPS 180-4), HMAC (RFC 2104), hex. Own code because the device agent is one static binary and the
 * packaged static crypto libraries do not link with musl. */
#include "core/core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__) && !defined(__clang__)
#define HAVE_SHA2_INSTRUCTIONS 1
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

static const uint32_t k_round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t ror(uint32_t x, int n) {
    return (x >> n) | (x << (32 - n));
}

/* One round; eight of them, each with the names turned by one, move nothing but values that change. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                           \
    do {                                                                                           \
        const uint32_t t1 = (h) + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) +                          \
                            ((g) ^ ((e) & ((f) ^ (g)))) + k_round[i] + w[i];                       \
        (d) += t1;                                                                                 \
        (h) = t1 + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + (((a) & (b)) | ((c) & ((a) | (b))));    \
    } while (0)

static void compress_plain(uint32_t state[8], const uint8_t block[64]) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | (uint32_t)block[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        const uint32_t s0 = ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ (w[i - 15] >> 3);
        const uint32_t s1 = ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i += 8) {
        ROUND(a, b, c, d, e, f, g, h, i);
        ROUND(h, a, b, c, d, e, f, g, i + 1);
        ROUND(g, h, a, b, c, d, e, f, i + 2);
        ROUND(f, g, h, a, b, c, d, e, i + 3);
        ROUND(e, f, g, h, a, b, c, d, i + 4);
        ROUND(d, e, f, g, h, a, b, c, i + 5);
        ROUND(c, d, e, f, g, h, a, b, i + 6);
        ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    const uint32_t v[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

#ifdef HAVE_SHA2_INSTRUCTIONS
/* Four rounds an instruction pair; w holds the sixteen latest words of the schedule. Most phones have these, and an upload to
 * one is mostly hashing. */
__attribute__((target("+crypto"))) static void compress_sha2(uint32_t state[8],
                                                             const uint8_t block[64]) {
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4), w[4];
    const uint32x4_t abcd_in = abcd, efgh_in = efgh;
    for (int i = 0; i < 4; i++)
        w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(block + 16 * (size_t)i)));
    for (int i = 0; i < 16; i++) {
        uint32x4_t *now = &w[i % 4];
        const uint32x4_t wk = vaddq_u32(*now, vld1q_u32(k_round + 4 * (size_t)i));
        const uint32x4_t before = abcd;
        if (i < 12) {
            *now = vsha256su1q_u32(vsha256su0q_u32(*now, w[(i + 1) % 4]), w[(i + 2) % 4],
                                   w[(i + 3) % 4]);
        }
        abcd = vsha256hq_u32(abcd, efgh, wk);
        efgh = vsha256h2q_u32(efgh, before, wk);
    }
    vst1q_u32(state, vaddq_u32(abcd, abcd_in));
    vst1q_u32(state + 4, vaddq_u32(efgh, efgh_in));
}

static void compress(uint32_t state[8], const uint8_t block[64]) {
    enum { SHA2 = 1 << 6 }; /* HWCAP_SHA2 */
    if ((getauxval(AT_HWCAP) & SHA2) != 0) {
        compress_sha2(state, block);
    } else {
        compress_plain(state, block);
    }
}
#else
static void compress(uint32_t state[8], const uint8_t block[64]) {
    compress_plain(state, block);
}
#endif

void nas_sha256_init(nas_sha256 *h) {
    *h = (nas_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void nas_sha256_update(nas_sha256 *h, const void *data, size_t len) {
    const uint8_t *p = data;
    size_t fill = (size_t)(h->bytes % 64);
    h->bytes += len;
    while (len > 0) {
        if (fill == 0 && len >= 64) {
            compress(h->state, p);
            p += 64;
            len -= 64;
            continue;
        }
        const size_t take = len < 64 - fill ? len : 64 - fill;
        memcpy(h->block + fill, p, take);
        fill += take;
        p += take;
        len -= take;
        if (fill == 64) {
            compress(h->state, h->block);
            fill = 0;
        }
    }
}

void nas_sha256_final(nas_sha256 *h, uint8_t out[NAS_SHA256_BYTES]) {
    const uint64_t bits = h->bytes * 8;
    static const uint8_t one = 0x80, zero = 0;
    nas_sha256_update(h, &one, 1);
    while (h->bytes % 64 != 56)
        nas_sha256_update(h, &zero, 1);
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    nas_sha256_update(h, length, sizeof length);
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void nas_sha256_bytes(const void *data, size_t len, uint8_t out[NAS_SHA256_BYTES]) {
    nas_sha256 h;
    nas_sha256_init(&h);
    nas_sha256_update(&h, data, len);
    nas_sha256_final(&h, out);
}

void nas_sha256_hex(const void *data, size_t len, char out[NAS_SHA256_HEX]) {
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_bytes(data, len, digest);
    nas_hex(digest, sizeof digest, out);
}

nas_status nas_sha256_file_hex(nas_ctx *ctx, const char *path, char out[NAS_SHA256_HEX]) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    nas_sha256 h;
    nas_sha256_init(&h);
    uint8_t chunk[16384];
    size_t n = 0;
    do {
        n = fread(chunk, 1, sizeof chunk, file);
        nas_sha256_update(&h, chunk, n);
    } while (n == sizeof chunk);
    const bool bad = ferror(file) != 0;
    (void)fclose(file); /* only read */
    if (bad) return nas_fail(ctx, NAS_ERR_IO, "%s: read failed", path);
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, out);
    return NAS_OK;
}

void nas_hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                     uint8_t out[NAS_SHA256_BYTES]) {
    uint8_t block[64] = {0};
    if (key_len > sizeof block) {
        nas_sha256_bytes(key, key_len, block);
    } else if (key_len > 0) {
        memcpy(block, key, key_len);
    }
    nas_sha256 h;
    uint8_t pad[64];
    for (size_t i = 0; i < 64; i++)
        pad[i] = block[i] ^ 0x36;
    nas_sha256_init(&h);
    nas_sha256_update(&h, pad, sizeof pad);
    nas_sha256_update(&h, data, len);
    uint8_t inner[NAS_SHA256_BYTES];
    nas_sha256_final(&h, inner);
    for (size_t i = 0; i < 64; i++)
        pad[i] = block[i] ^ 0x5c;
    nas_sha256_init(&h);
    nas_sha256_update(&h, pad, sizeof pad);
    nas_sha256_update(&h, inner, sizeof inner);
    nas_sha256_final(&h, out);
}

void nas_hex(const void *data, size_t len, char *out) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * len] = '\0';
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool nas_unhex(const char *text, size_t len_bytes, uint8_t *out) {
    if (strlen(text) != 2 * len_bytes) return false;
    for (size_t i = 0; i < len_bytes; i++) {
        const int high = hex_digit(text[2 * i]);
        const int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool nas_equal_constant_time(const void *a, const void *b, size_t len) {
    const volatile uint8_t *x = a;
    const volatile uint8_t *y = b;
    uint8_t difference = 0;
    for (size_t i = 0; i < len; i++)
        difference |= (uint8_t)(x[i] ^ y[i]);
    return difference == 0;
}

nas_status nas_random_bytes(nas_ctx *ctx, void *out, size_t len) {
    FILE *file = fopen("/dev/urandom", "rb");
    if (file == NULL) return nas_fail(ctx, NAS_ERR_IO, "/dev/urandom: %s", strerror(errno));
    const size_t got = fread(out, 1, len, file);
    (void)fclose(file); /* only read */
    if (got != len) return nas_fail(ctx, NAS_ERR_IO, "/dev/urandom: short read");
    return NAS_OK;
}
