/* code_size.c - bytes of machine code and constants in an object file: what kernels take on a device, weights apart. */
#include "compiler/compiler_internal.h"

#include <elf.h>
#include <string.h>

enum { OBJECT_BYTES_MAX = 64 * 1024 * 1024 };

/* One section, of either width. */
typedef struct section {
    uint64_t name, flags, offset, size;
    uint32_t type;
} section;

/* Where the sections are. */
typedef struct table {
    const nas_buf *file;
    bool wide;
    uint64_t at;
    uint32_t n, names;
} table;

static bool read_at(const nas_buf *file, uint64_t at, void *out, size_t size) {
    if (at > file->len || file->len - at < size) return false;
    memcpy(out, file->data + at, size);
    return true;
}

static bool open_table(const nas_buf *file, table *t) {
    unsigned char ident[EI_NIDENT];
    *t = (table){.file = file};
    if (!read_at(file, 0, ident, sizeof ident) || memcmp(ident, ELFMAG, SELFMAG) != 0 ||
        ident[EI_DATA] != ELFDATA2LSB)
        return false;
    t->wide = ident[EI_CLASS] == ELFCLASS64;
    if (t->wide) {
        Elf64_Ehdr h;
        if (!read_at(file, 0, &h, sizeof h)) return false;
        t->at = h.e_shoff;
        t->n = h.e_shnum;
        t->names = h.e_shstrndx;
    } else {
        Elf32_Ehdr h;
        if (!read_at(file, 0, &h, sizeof h)) return false;
        t->at = h.e_shoff;
        t->n = h.e_shnum;
        t->names = h.e_shstrndx;
    }
    return t->names < t->n;
}

static bool read_section(const table *t, uint32_t index, section *out) {
    if (t->wide) {
        Elf64_Shdr s;
        if (!read_at(t->file, t->at + index * sizeof s, &s, sizeof s)) return false;
        *out = (section){s.sh_name, s.sh_flags, s.sh_offset, s.sh_size, s.sh_type};
    } else {
        Elf32_Shdr s;
        if (!read_at(t->file, t->at + index * sizeof s, &s, sizeof s)) return false;
        *out = (section){s.sh_name, s.sh_flags, s.sh_offset, s.sh_size, s.sh_type};
    }
    return true;
}

/* Instructions, and the constants that they read. */
static bool is_code(const table *t, const section *names, const section *s) {
    static const char constants[] = ".rodata";
    char name[sizeof constants] = "";
    if (s->type != SHT_PROGBITS || (s->flags & SHF_ALLOC) == 0) return false;
    if ((s->flags & SHF_EXECINSTR) != 0) return true;
    if (!read_at(t->file, names->offset + s->name, name, sizeof constants - 1)) return false;
    return strcmp(name, constants) == 0;
}

nas_status nas__code_bytes(nas_ctx *ctx, const char *path, uint64_t *out) {
    nas_buf file = {0};
    table t;
    section names, s;
    uint64_t bytes = 0;
    nas_status status = nas_file_read(ctx, path, OBJECT_BYTES_MAX, &file);
    if (status != NAS_OK) return status;
    bool good = open_table(&file, &t) && read_section(&t, t.names, &names);
    for (uint32_t i = 0; i < t.n && good; i++) {
        good = read_section(&t, i, &s);
        if (good && is_code(&t, &names, &s)) bytes += s.size;
    }
    nas_buf_deinit(&file);
    if (!good) return nas_fail(ctx, NAS_ERR_PARSE, "%s: not an object file of ELF", path);
    *out = bytes;
    return NAS_OK;
}
