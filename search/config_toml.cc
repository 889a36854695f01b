// config_toml.cc - toml++ behind the C interface of config_toml.h. No exception and no C++ type leaves this file.
#include "search/config_toml.h"

#include <cstdio>
#include <new>
#include <string>
#include <string_view>
#include <vector>

// The parser's own assertions can be reached by hostile text ("[[[" is one, in version 3.3): they become an exception,
// so that such a file is a syntax error and not the end of the program.
struct parser_assertion {};
[[noreturn]] static void parser_assertion_failed() {
    throw parser_assertion{};
}
#define TOML_ASSERT(condition) ((condition) ? static_cast<void>(0) : parser_assertion_failed())
#include <toml++/toml.h>

namespace {

struct walker {
    nas__toml_visit visit;
    void *user;
    bool stopped = false;
};

bool is_bare(std::string_view key) {
    if (key.empty()) return false;
    for (const char c : key) {
        const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!fine) return false;
    }
    return true;
}

std::string joined(const std::string &parent, std::string_view key) {
    std::string path = parent;
    if (!path.empty()) path += '.';
    if (is_bare(key)) return path.append(key);
    path += '"';
    for (const char c : key) { // a NUL would cut the C string short
        if (c == '"' || c == '\\') path += '\\';
        if (c == '\0') {
            path += "\\0";
        } else {
            path += c;
        }
    }
    return path += '"';
}

int32_t narrow(toml::source_index n) {
    return n > INT32_MAX ? INT32_MAX : static_cast<int32_t>(n);
}

nas__toml_value value_at(const toml::node &node) {
    nas__toml_value value{};
    value.line = narrow(node.source().begin.line);
    value.column = narrow(node.source().begin.column);
    return value;
}

nas__toml_value scalar(const toml::node &node) {
    nas__toml_value value = value_at(node);
    if (const auto *text = node.as_string()) {
        value.type = NAS__TOML_TEXT;
        value.text = text->get().c_str();
        value.text_len = text->get().size();
    } else if (const auto *integer = node.as_integer()) {
        value.type = NAS__TOML_INTEGER;
        value.integer = integer->get();
        value.number = static_cast<double>(integer->get());
    } else if (const auto *number = node.as_floating_point()) {
        value.type = NAS__TOML_NUMBER;
        value.number = number->get();
    } else if (const auto *flag = node.as_boolean()) {
        value.type = NAS__TOML_FLAG;
        value.flag = flag->get();
    } else if (node.is_array()) {
        value.type = NAS__TOML_LIST;
    } else if (node.is_table()) {
        value.type = NAS__TOML_TABLE;
    } else {
        value.type = NAS__TOML_DATE;
    }
    return value;
}

void call(walker &w, const std::string &path, const toml::source_position &key,
          const nas__toml_value &value) {
    w.stopped = w.visit(w.user, path.c_str(), narrow(key.line), narrow(key.column), &value) != 0;
}

void walk_node(walker &w, const std::string &path, const toml::source_position &key,
               const toml::node &node);

void walk_table(walker &w, const std::string &path, const toml::table &table) {
    for (const auto &[key, node] : table) {
        if (w.stopped) return;
        walk_node(w, joined(path, key.str()), key.source().begin, node);
    }
}

void walk_array(walker &w, const std::string &path, const toml::source_position &key,
                const toml::array &array) {
    if (!array.empty() && array.is_homogeneous(toml::node_type::table)) {
        for (size_t i = 0; i < array.size() && !w.stopped; i++) {
            const std::string element = path + "[" + std::to_string(i) + "]";
            walk_node(w, element, array[i].source().begin, array[i]);
        }
        return;
    }
    std::vector<nas__toml_value> items;
    items.reserve(array.size());
    for (const toml::node &item : array)
        items.push_back(scalar(item));
    nas__toml_value list = value_at(array);
    list.type = NAS__TOML_LIST;
    list.items = items.data();
    list.n_items = items.size();
    call(w, path, key, list);
}

void walk_node(walker &w, const std::string &path, const toml::source_position &key,
               const toml::node &node) {
    if (const auto *array = node.as_array()) {
        walk_array(w, path, key, *array);
        return;
    }
    call(w, path, key, scalar(node));
    if (const auto *table = node.as_table(); table != nullptr && !w.stopped)
        walk_table(w, path, *table);
}

void explain(nas__toml_error *error, std::string_view text, const toml::source_position &at) {
    std::snprintf(error->text, sizeof error->text, "%.*s", static_cast<int>(text.size()),
                  text.data());
    error->line = narrow(at.line);
    error->column = narrow(at.column);
}

enum class attempt { fine, syntax, assertion };

attempt try_parse(std::string_view text, toml::table &document, nas__toml_error *error) {
    try {
        document = toml::parse(text);
        return attempt::fine;
    } catch (const toml::parse_error &e) {
        explain(error, e.description(), e.source().begin);
        return attempt::syntax;
    } catch (const parser_assertion &) {
        return attempt::assertion;
    }
}

// An assertion has no position: the line is the last one of the shortest head of the text that trips it.
void locate_assertion(std::string_view text, nas__toml_error *error) {
    std::vector<size_t> ends; // of each line
    for (size_t i = 0; i < text.size(); i++) {
        if (text[i] == '\n' || i + 1 == text.size()) ends.push_back(i + 1);
    }
    size_t lo = 0, hi = ends.empty() ? 0 : ends.size() - 1; // line index, the answer is in [lo, hi]
    while (lo < hi) {
        const size_t middle = lo + (hi - lo) / 2;
        toml::table ignored;
        nas__toml_error unused;
        const bool trips =
            try_parse(text.substr(0, ends[middle]), ignored, &unused) == attempt::assertion;
        if (trips) {
            hi = middle;
        } else {
            lo = middle + 1;
        }
    }
    explain(error, "the line makes no sense as a key or a section",
            {static_cast<toml::source_index>(lo + 1), 1});
}

} // namespace

nas__toml_result nas__toml_parse(const char *text, size_t len, nas__toml_visit visit, void *user,
                                 nas__toml_error *error) {
    try {
        toml::table document;
        switch (try_parse(std::string_view{text, len}, document, error)) {
        case attempt::fine: break;
        case attempt::syntax: return NAS__TOML_SYNTAX;
        case attempt::assertion:
            locate_assertion(std::string_view{text, len}, error);
            return NAS__TOML_SYNTAX;
        }
        walker w{visit, user};
        walk_table(w, std::string{}, document);
        return w.stopped ? NAS__TOML_STOPPED : NAS__TOML_OK;
    } catch (const std::bad_alloc &) {
        return NAS__TOML_NO_MEMORY;
    } catch (const std::exception &e) {
        explain(error, e.what(), {});
        return NAS__TOML_BROKEN;
    } catch (...) {
        explain(error, "unknown failure of the TOML parser", {});
        return NAS__TOML_BROKEN;
    }
}
