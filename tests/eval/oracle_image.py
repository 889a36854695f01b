#!/usr/bin/env python3
"""oracle_image.py - writes oracle_image.h: bicubic, PSNR and SSIM values computed apart from the C code.

Standard library only. Bicubic is MATLAB's formula in exact fractions, one output sample at a time, two axes at once
(no separable passes); PSNR and SSIM are the plain double loops of their definitions.
Run: python3 tests/eval/oracle_image.py > tests/eval/oracle_image.h
"""
import math
from fractions import Fraction as F


def pattern(seed, h, w):
    """Levels 0..255, the same formula as pattern() in image_files.c."""
    return [[(x * 37 + y * 101 + x * y * 13 + seed * 7919 + (x * x * y + seed) % 31 * 5) % 256
             for x in range(w)] for y in range(h)]


def cubic(x):
    t = abs(x)
    if t <= 1:
        return F(3, 2) * t ** 3 - F(5, 2) * t ** 2 + 1
    if t <= 2:
        return -F(1, 2) * t ** 3 + F(5, 2) * t ** 2 - 4 * t + 2
    return F(0)


def taps(n_in, n_out, i):
    """MATLAB contributions(): 1-based u, kernel stretched when shrinking, mirrored indices."""
    scale = F(n_out, n_in)
    width = 4 if scale >= 1 else 4 / scale
    kernel = cubic if scale >= 1 else lambda d: scale * cubic(scale * d)
    u = F(i + 1) / scale + F(1, 2) * (1 - 1 / scale)
    left = math.floor(u - F(width) / 2)
    p = math.ceil(width) + 2
    pairs = [(left + k, kernel(u - (left + k))) for k in range(p)]
    total = sum(w for _, w in pairs)
    mirror = list(range(n_in)) + list(range(n_in - 1, -1, -1))
    return [(mirror[(k - 1) % (2 * n_in)], w / total) for k, w in pairs if w != 0]


def resize(image, out_h, out_w):
    h, w = len(image), len(image[0])
    rows = [taps(h, out_h, i) for i in range(out_h)]
    cols = [taps(w, out_w, i) for i in range(out_w)]
    return [[sum(wy * wx * image[y][x] for y, wy in rows[i] for x, wx in cols[j]) for j in range(out_w)]
            for i in range(out_h)]


def psnr(a, b, border):
    h, w = len(a), len(a[0])
    d = [(a[y][x] - b[y][x]) ** 2 for y in range(border, h - border) for x in range(border, w - border)]
    return 10 * math.log10(255 ** 2 / (sum(d) / len(d)))


def ssim(a, b, border):
    h, w = len(a) - 2 * border, len(a[0]) - 2 * border
    g = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5 ** 2)) for j in range(11)] for i in range(11)]
    s = sum(map(sum, g))
    g = [[v / s for v in row] for row in g]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(h - 10):
        for x in range(w - 10):
            cells = [(g[i][j], a[border + y + i][border + x + j], b[border + y + i][border + x + j])
                     for i in range(11) for j in range(11)]
            ma = sum(k * p for k, p, _ in cells)
            mb = sum(k * q for k, _, q in cells)
            va = sum(k * (p - ma) ** 2 for k, p, _ in cells)
            vb = sum(k * (q - mb) ** 2 for k, _, q in cells)
            cov = sum(k * (p - ma) * (q - mb) for k, p, q in cells)
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))
    return sum(values) / len(values)


def luma(r, g, b):
    return (65.481 * r + 128.553 * g + 24.966 * b) / 255 + 16


CASES = [(6, 8, 3, 4), (12, 9, 4, 3), (16, 12, 4, 3), (5, 4, 10, 8), (4, 3, 12, 9), (3, 4, 12, 16), (7, 5, 5, 7),
         (1, 6, 3, 3), (2, 2, 1, 1), (9, 10, 1, 2)]
QUALITY = [(18, 20, 0), (19, 17, 2), (23, 15, 1)]


def main():
    print("/* Written by oracle_image.py; do not edit. Bicubic values are levels 0..255 of pattern(1, ...). */")
    print("#ifndef NAS_TESTS_EVAL_ORACLE_IMAGE_H\n#define NAS_TESTS_EVAL_ORACLE_IMAGE_H\n\n#include <stdint.h>\n")
    for n, (h, w, oh, ow) in enumerate(CASES):
        values = [v for row in resize(pattern(1, h, w), oh, ow) for v in row]
        print(f"static const double resize_{n}[] = {{")
        for i in range(0, len(values), 6):
            print("    " + " ".join(f"{float(v):.9f}," for v in values[i:i + 6]))
        print("};")
    print("static const struct {\n    int32_t h, w, out_h, out_w;\n    const double *values;\n} resize_cases[] = {")
    for n, (h, w, oh, ow) in enumerate(CASES):
        print(f"    {{{h}, {w}, {oh}, {ow}, resize_{n}}},")
    print("};\n")
    print("/* Of pattern(2, ...) against pattern(2, ...) mixed with pattern(3, ...) 3:1, on levels; then of RGB images")
    print(" * with the planes pattern(2 + c) against pattern(5 + c). */")
    print("static const struct {\n    int32_t h, w, border;\n    double psnr, ssim, psnr_rgb, ssim_rgb;\n} quality_cases[] = {")
    for h, w, border in QUALITY:
        a, c = pattern(2, h, w), pattern(3, h, w)
        b = [[(3 * p + q) / 4 for p, q in zip(ra, rc)] for ra, rc in zip(a, c)]
        ya, yb = [[[luma(*(pattern(s + k, h, w)[y][x] for k in range(3))) for x in range(w)] for y in range(h)]
                  for s in (2, 5)]
        print(f"    {{{h}, {w}, {border}, {psnr(a, b, border):.9f}, {ssim(a, b, border):.9f}, "
              f"{psnr(ya, yb, border):.9f}, {ssim(ya, yb, border):.9f}}},")
    print("};\n\n#endif")


main()
