# find_loop.awk - of gcc's assembly for 64-bit Arm: of the functions whose name matches `role` (-v role=; all without one) the
# innermost loop with the most multiply-adds; of equals, and of the loops that turn an input or output, the longest one.
function consider(from, to,    i, k, count) {
    for (k = 1; k <= loops; k++) # has it a loop inside?
        if (start[k] > from && end[k] < to) return
    for (i = from; i <= to; i++)
        count += role != "_gather" && role != "_finish" && line[i] ~ /^[ \t]+(fmla|sdot|u?smmla|bfmmla)[ \t]/ ? 1000 : 1
    if (count > best) { best = count; best_from = from; best_to = to }
}
function finish(    k) {
    if (wanted) for (k = 1; k <= loops; k++) consider(start[k], end[k])
    if (best > whole_best) {
        whole_best = best
        whole = ""
        for (k = best_from; k <= best_to; k++) if (line[k] ~ /^[ \t]+[a-z]/) whole = whole line[k] "\n"
    }
    best = n = loops = 0
    split("", at)
}
/^[a-zA-Z_][a-zA-Z0-9_.]*:/ { finish(); wanted = role == "" || $1 ~ role "[0-9]*[.:]" }
{ sub(/[ \t]*\/\/.*/, "") }
/^\.L[A-Za-z0-9_]+:/ { name = $1; sub(/:.*/, "", name); at[name] = n + 1; next }
/^[ \t]+\./ { next }
/^[ \t]+[a-z]/ {
    line[++n] = $0
    if ($1 ~ /^(b\.?[a-z]*|cbn?z|tbn?z)$/ && ($NF in at)) { start[++loops] = at[$NF]; end[loops] = n }
}
END { finish(); printf "%s", whole }
