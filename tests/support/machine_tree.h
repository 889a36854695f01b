/* machine_tree.h - the /proc and /sys of a made-up phone below a folder: one little and one big CPU, a thermal zone, a
 * battery. */
#ifndef NAS_TESTS_SUPPORT_MACHINE_TREE_H
#define NAS_TESTS_SUPPORT_MACHINE_TREE_H

#include "core/core.h"

void tree_write(const char *root, const char *path, const char *text);
void tree_read(const char *root, const char *path, char *out, size_t size);
/* tree_phone - clusters {0} (capacity 384, 576..1785.6 MHz) and {1} (1024, 576..2419.2 MHz), CPU at 34 C. */
void tree_phone(const char *root);

#endif
