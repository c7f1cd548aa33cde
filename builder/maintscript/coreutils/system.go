package coreutils

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// accounts returns the entries of /etc/passwd or /etc/group with at least
// four fields.
func accounts(p *shell.Process, file string) [][]string {
	data, err := p.Tree.ReadFile(file)
	if err != nil {
		return nil
	}
	var list [][]string
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(f) >= 4 {
			list = append(list, f)
		}
	}
	return list
}

func accountFile(group bool) string {
	if group {
		return "/etc/group"
	}
	return "/etc/passwd"
}

// lookupID returns the number of a user or group of the tree; a number stands
// for itself.
func lookupID(p *shell.Process, name string, group bool) (int, error) {
	for _, f := range accounts(p, accountFile(group)) {
		if f[0] == name {
			return strconv.Atoi(f[2])
		}
	}
	if n, err := strconv.ParseUint(strings.TrimPrefix(name, "+"), 10, 32); err == nil {
		return int(n), nil
	}
	if name == "root" {
		return 0, nil
	}
	kind := "user"
	if group {
		kind = "group"
	}
	return 0, fmt.Errorf("invalid %s: '%s'", kind, name)
}

// nameOf returns the name of a user or group number, "UNKNOWN" if it has none.
func nameOf(p *shell.Process, id uint32, group bool) string {
	want := strconv.FormatUint(uint64(id), 10)
	for _, f := range accounts(p, accountFile(group)) {
		if f[2] == want {
			return f[0]
		}
	}
	if id == 0 {
		return "root"
	}
	return "UNKNOWN"
}

func id(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "ugGnrza", "user=u", "group=g", "groups=G", "name=n", "real=r", "zero=z")
	user, uid, gid := "root", 0, 0
	if len(args) > 0 {
		found := false
		for _, f := range accounts(p, "/etc/passwd") {
			if f[0] == args[0] || f[2] == args[0] {
				user, found = f[0], true
				uid, _ = strconv.Atoi(f[2])
				gid, _ = strconv.Atoi(f[3])
				break
			}
		}
		if !found && args[0] != "root" {
			p.Errorf("'%s': no such user", args[0])
			return 1
		}
	}
	all := []int{gid}
	for _, f := range accounts(p, "/etc/group") {
		n, err := strconv.Atoi(f[2])
		if err == nil && n != gid && len(args) > 0 && slices.Contains(strings.Split(f[3], ","), user) {
			all = append(all, n)
		}
	}
	show := func(n int, group bool) string {
		if has(opts, "n") {
			if name := nameOf(p, uint32(n), group); name != "UNKNOWN" {
				return name
			}
		}
		return strconv.Itoa(n)
	}
	full := func(n int, group bool) string {
		if name := nameOf(p, uint32(n), group); name != "UNKNOWN" {
			return fmt.Sprintf("%d(%s)", n, name)
		}
		return strconv.Itoa(n)
	}
	var parts []string
	switch {
	case has(opts, "u"):
		parts = []string{show(uid, false)}
	case has(opts, "g"):
		parts = []string{show(gid, true)}
	case has(opts, "G"):
		for _, g := range all {
			parts = append(parts, show(g, true))
		}
	default:
		var names []string
		for _, g := range all {
			names = append(names, full(g, true))
		}
		parts = []string{"uid=" + full(uid, false), "gid=" + full(gid, true), "groups=" + strings.Join(names, ",")}
	}
	fmt.Fprintln(p.Stdout, strings.Join(parts, " "))
	return 0
}

func groups(ctx context.Context, p *shell.Process) int {
	_, args := parse(p, "")
	if len(args) == 0 {
		fmt.Fprintln(p.Stdout, "root")
		return 0
	}
	status := 0
	for _, a := range args {
		fmt.Fprintf(p.Stdout, "%s : ", a)
		q := *p
		q.Args = []string{"id", "-Gn", a}
		status = max(status, id(ctx, &q))
	}
	return status
}

func whoami(_ context.Context, p *shell.Process) int {
	fmt.Fprintln(p.Stdout, "root")
	return 0
}

// getent looks into the tree's files; networks and names of hosts do not
// exist while a card is built.
func getent(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "s:iA", "service:=s", "no-idn=i")
	_ = opts
	if len(args) == 0 {
		p.Errorf("wrong number of arguments")
		return 1
	}
	database, keys := args[0], args[1:]
	file, separator := "", ":"
	switch database {
	case "passwd", "group", "shadow", "gshadow":
		file = "/etc/" + database
	case "services", "protocols", "rpc", "ethers", "networks":
		file, separator = "/etc/"+database, " "
	case "hosts", "ahosts", "ahostsv4", "ahostsv6", "netgroup":
		return 2
	default:
		p.Errorf("Unknown database: %s", database)
		return 1
	}
	if separator == " " {
		p.Unsupported("the database %s", database)
	}
	data, err := p.Tree.ReadFile(file)
	if err != nil {
		return 2
	}
	list, _ := lines(data)
	var o out
	if len(keys) == 0 {
		for _, l := range list {
			o.line(l)
		}
		return o.done(p, 0)
	}
	status := 0
	for _, key := range keys {
		found := false
		for _, l := range list {
			f := strings.Split(l, ":")
			byNumber := (database == "passwd" || database == "group") && len(f) > 2 && f[2] == key
			if f[0] == key || byNumber {
				o.line(l)
				found = true
				break
			}
		}
		if !found {
			status = 2
		}
	}
	return o.done(p, status)
}

func env(ctx context.Context, p *shell.Process) int {
	opts, args := parse(p, "+iu:0C:S:", "ignore-environment=i", "unset:=u", "null=0", "chdir:=C")
	vars := maps.Clone(p.Env)
	if len(args) > 0 && args[0] == "-" {
		vars, args = map[string]string{}, args[1:]
	}
	dir, end := p.Dir, "\n"
	for _, o := range opts {
		switch o.name {
		case "i":
			vars = map[string]string{}
		case "u":
			delete(vars, o.value)
		case "0":
			end = "\x00"
		case "C":
			dir = p.Path(o.value)
		case "S":
			p.Unsupported("option -S")
		}
	}
	if vars == nil {
		vars = map[string]string{}
	}
	for len(args) > 0 {
		name, value, ok := strings.Cut(args[0], "=")
		if !ok {
			break
		}
		vars[name], args = value, args[1:]
	}
	if len(args) == 0 {
		var o out
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			o.WriteString(name + "=" + vars[name] + end)
		}
		return o.done(p, 0)
	}
	status := p.Run(ctx, shell.Call{Args: args, Env: vars, Dir: dir})
	if status == 127 {
		p.Errorf("'%s': No such file or directory", args[0])
	}
	return status
}

func printenv(_ context.Context, p *shell.Process) int {
	_, args := parse(p, "0", "null=0")
	var o out
	status := 0
	if len(args) == 0 {
		for _, name := range slices.Sorted(maps.Keys(p.Env)) {
			o.line(name + "=" + p.Env[name])
		}
	}
	for _, a := range args {
		if v, ok := p.Env[a]; ok {
			o.line(v)
		} else {
			status = 1
		}
	}
	return o.done(p, status)
}

// nohup runs another program with nothing changed: also nice and ionice.
func nohup(ctx context.Context, p *shell.Process) int {
	_, args := parse(p, "+n:c:p:t", "adjustment:=n", "class:=c", "classdata:=n")
	if len(args) == 0 {
		return 0
	}
	return p.Run(ctx, shell.Call{Args: args})
}

func timeout(ctx context.Context, p *shell.Process) int {
	_, args := parse(p, "+s:k:v", "signal:=s", "kill-after:=k", "preserve-status", "foreground", "verbose=v")
	if len(args) < 2 {
		p.Errorf("missing operand")
		return 125
	}
	return p.Run(ctx, shell.Call{Args: args[1:]})
}

// machine is what the kernel would call the architecture that dpkg runs the
// script for.
func machine(p *shell.Process) string {
	switch p.Env["DPKG_MAINTSCRIPT_ARCH"] {
	case "amd64":
		return "x86_64"
	case "armhf", "armel":
		return "armv7l"
	}
	return "aarch64"
}

func arch(_ context.Context, p *shell.Process) int {
	fmt.Fprintln(p.Stdout, machine(p))
	return 0
}

// release is the newest kernel that the tree has modules of.
func release(p *shell.Process) string {
	names, _ := p.Tree.ReadDir("/usr/lib/modules")
	best := ""
	for _, n := range names {
		if best == "" || compareVersion(n, best) > 0 {
			best = n
		}
	}
	if best == "" {
		return "6.12.0"
	}
	return best
}

func nodeName(p *shell.Process) string {
	data, err := p.Tree.ReadFile("/etc/hostname")
	if name, _, _ := strings.Cut(string(data), "\n"); err == nil && name != "" {
		return name
	}
	return "localhost"
}

func uname(_ context.Context, p *shell.Process) int {
	opts, _ := parse(p, "asnrvmpio", "all=a", "kernel-name=s", "nodename=n", "kernel-release=r", "kernel-version=v", "machine=m",
		"processor=p", "hardware-platform=i", "operating-system=o")
	all := has(opts, "a")
	var parts []string
	add := func(letter, value string) {
		if all || has(opts, letter) {
			parts = append(parts, value)
		}
	}
	if len(opts) == 0 {
		parts = []string{"Linux"}
	}
	add("s", "Linux")
	add("n", nodeName(p))
	add("r", release(p))
	add("v", "#1 SMP Debian")
	add("m", machine(p))
	if !all {
		add("p", "unknown")
		add("i", "unknown")
	}
	add("o", "GNU/Linux")
	fmt.Fprintln(p.Stdout, strings.Join(parts, " "))
	return 0
}

func hostname(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "fsdiIAF:b", "fqdn=f", "long=f", "short=s", "domain=d", "ip-address=i", "all-ip-addresses=I")
	if len(args) > 0 || has(opts, "F", "b") {
		p.Unsupported("setting the host's name")
	}
	name := nodeName(p)
	switch {
	case has(opts, "s"):
		name, _, _ = strings.Cut(name, ".")
	case has(opts, "d"):
		_, name, _ = strings.Cut(name, ".")
	case has(opts, "i", "I", "A"):
		name = ""
	}
	fmt.Fprintln(p.Stdout, name)
	return 0
}

func nproc(_ context.Context, p *shell.Process) int {
	fmt.Fprintln(p.Stdout, 1)
	return 0
}

func pwd(_ context.Context, p *shell.Process) int {
	opts, _ := parse(p, "LP", "logical=L", "physical=P")
	dir := p.Dir
	if !has(opts, "L") {
		if real, err := p.Tree.RealPath(dir); err == nil {
			dir = real
		}
	}
	fmt.Fprintln(p.Stdout, dir)
	return 0
}

func tty(_ context.Context, p *shell.Process) int {
	if opts, _ := parse(p, "s", "silent=s", "quiet=s"); !has(opts, "s") {
		fmt.Fprintln(p.Stdout, "not a tty")
	}
	return 1
}

func mountpoint(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "qdx", "quiet=q", "fs-devno=d", "devno=x", "nofollow")
	if len(args) == 0 {
		p.Errorf("bad usage")
		return 1
	}
	if real, err := p.Tree.RealPath(p.Path(args[0])); err == nil && real == "/" {
		if !has(opts, "q") {
			fmt.Fprintf(p.Stdout, "%s is a mountpoint\n", args[0])
		}
		return 0
	}
	if !has(opts, "q") {
		fmt.Fprintf(p.Stdout, "%s is not a mountpoint\n", args[0])
	}
	return 32
}

// df tells of one file system with room enough.
func df(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "kPBTht:m", "portability=P", "output::=output", "block-size:=B", "print-type=T")
	if has(opts, "output", "B", "T", "h", "m", "t") {
		p.Unsupported("these options")
	}
	for _, a := range args {
		if _, err := p.Stat(a); err != nil {
			p.Errorf("%s: %s", a, shell.Reason(err))
			return 1
		}
	}
	head := "1K-blocks"
	if has(opts, "P") {
		head = "1024-blocks"
	}
	fmt.Fprintf(p.Stdout, "Filesystem     %s Used Available Use%% Mounted on\n/dev/root       16777216 4194304 12582912  25%% /\n", head)
	return 0
}

func which(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "as")
	status := 0
	pathVar, ok := p.Env["PATH"]
	if !ok {
		pathVar = shell.DefaultPath
	}
	for _, a := range args {
		found := false
		dirs := strings.Split(pathVar, ":")
		if strings.Contains(a, "/") {
			dirs = []string{""}
		}
		for _, dir := range dirs {
			file := a
			if dir != "" {
				file = strings.TrimSuffix(dir, "/") + "/" + a
			}
			n, err := p.Stat(file)
			if err != nil || !n.IsRegular() || n.Mode&0o111 == 0 {
				continue
			}
			found = true
			if !has(opts, "s") {
				fmt.Fprintln(p.Stdout, file)
			}
			if !has(opts, "a") {
				break
			}
		}
		if !found {
			status = 1
		}
	}
	return status
}

// runParts is debianutils' run-parts.
func runParts(ctx context.Context, p *shell.Process) int {
	opts, args := parse(p, "va:u:", "test", "list", "verbose=v", "report", "reverse", "exit-on-error=exit", "umask:=u", "lsbsysinit=lsb",
		"regex:=regex", "arg:=a", "debug")
	if len(args) != 1 {
		p.Errorf("missing operand")
		return 1
	}
	expr := "^[a-zA-Z0-9_-]+$"
	if has(opts, "lsb") {
		expr = "^_?([a-z0-9_.]+-)+[a-z0-9]+$|^[a-z0-9]+$|^[a-zA-Z0-9_-]+$"
	}
	umask := uint32(0o022)
	var pass []string
	for _, o := range opts {
		switch o.name {
		case "regex":
			expr = o.value
		case "a":
			pass = append(pass, o.value)
		case "u":
			n, err := strconv.ParseUint(o.value, 8, 9)
			if err != nil {
				p.Errorf("bad umask value")
				return 1
			}
			umask = uint32(n)
		}
	}
	re, err := compile(expr, true, false)
	if err != nil {
		p.Errorf("%s", err)
		return 1
	}
	dir := args[0]
	names, err := p.Tree.ReadDir(p.Path(dir))
	if err != nil {
		p.Errorf("failed to open directory %s: %s", dir, shell.Reason(err))
		return 1
	}
	if has(opts, "reverse") {
		slices.Reverse(names)
	}
	status := 0
	for _, name := range names {
		file := strings.TrimSuffix(dir, "/") + "/" + name
		n, err := p.Stat(file)
		if !re.matches(name) || err != nil || n.IsDir() {
			continue
		}
		if has(opts, "list") {
			fmt.Fprintln(p.Stdout, file)
			continue
		}
		if !n.IsRegular() || n.Mode&0o111 == 0 {
			continue
		}
		if has(opts, "test") {
			fmt.Fprintln(p.Stdout, file)
			continue
		}
		if has(opts, "v") {
			fmt.Fprintf(p.Stderr, "%s: executing %s %s\n", p.Name(), file, strings.Join(pass, " "))
		}
		if s := p.Run(ctx, shell.Call{Args: slices.Concat([]string{file}, pass), Umask: &umask}); s != 0 {
			p.Errorf("%s exited with return code %d", file, s)
			status = 1
			if has(opts, "exit") {
				return status
			}
		}
	}
	return status
}

// formatTime formats a time in UTC as strftime(3) does, for the conversions
// that numbers and names need.
func formatTime(sec int64, format string) string {
	t := time.Unix(sec, 0).UTC()
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		pad := true
		if format[i] == '-' && i+1 < len(format) {
			pad = false
			i++
		}
		two := func(n int) {
			if pad {
				fmt.Fprintf(&b, "%02d", n)
			} else {
				b.WriteString(strconv.Itoa(n))
			}
		}
		switch format[i] {
		case '%':
			b.WriteByte('%')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 's':
			b.WriteString(strconv.FormatInt(sec, 10))
		case 'N':
			b.WriteString("000000000")
		case 'Y':
			b.WriteString(strconv.Itoa(t.Year()))
		case 'C':
			two(t.Year() / 100)
		case 'y':
			two(t.Year() % 100)
		case 'm':
			two(int(t.Month()))
		case 'd':
			two(t.Day())
		case 'e':
			fmt.Fprintf(&b, "%2d", t.Day())
		case 'H':
			two(t.Hour())
		case 'I':
			two((t.Hour()+11)%12 + 1)
		case 'M':
			two(t.Minute())
		case 'S':
			two(t.Second())
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 'u':
			b.WriteString(strconv.Itoa((int(t.Weekday())+6)%7 + 1))
		case 'w':
			b.WriteString(strconv.Itoa(int(t.Weekday())))
		case 'F':
			b.WriteString(t.Format("2006-01-02"))
		case 'T':
			b.WriteString(t.Format("15:04:05"))
		case 'R':
			b.WriteString(t.Format("15:04"))
		case 'D':
			b.WriteString(t.Format("01/02/06"))
		case 'a':
			b.WriteString(t.Format("Mon"))
		case 'A':
			b.WriteString(t.Format("Monday"))
		case 'b', 'h':
			b.WriteString(t.Format("Jan"))
		case 'B':
			b.WriteString(t.Format("January"))
		case 'p':
			b.WriteString(t.Format("PM"))
		case 'c':
			b.WriteString(t.Format("Mon Jan _2 15:04:05 2006"))
		case 'Z':
			b.WriteString("UTC")
		case 'z':
			b.WriteString("+0000")
		default:
			b.WriteString(format[i-1 : i+1])
		}
	}
	return b.String()
}

// parseTime reads the dates that scripts write: @seconds, now, and ISO 8601.
func parseTime(p *shell.Process, s string) (int64, bool) {
	if n, ok := strings.CutPrefix(s, "@"); ok {
		sec, err := strconv.ParseInt(n, 10, 64)
		return sec, err == nil
	}
	if s == "now" || s == "" {
		return p.Tree.Epoch(), true
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02",
		time.RFC1123Z, time.RFC1123, "2006-01-02T15:04:05", "Mon, 2 Jan 2006 15:04:05 -0700",
		time.UnixDate} { // UnixDate is what date itself prints
		if t, err := time.Parse(layout, s); err == nil {
			return t.Unix(), true
		}
	}
	return 0, false
}

// parseStamp reads touch's [[CC]YY]MMDDhhmm[.ss].
func parseStamp(s string) (int64, bool) {
	main, sec, ok := strings.Cut(s, ".")
	if !ok {
		sec = "00"
	}
	layout := map[int]string{12: "200601021504", 10: "0601021504"}[len(main)]
	if layout == "" {
		return 0, false
	}
	t, err := time.Parse(layout+"05", main+sec)
	return t.Unix(), err == nil
}

func date(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "ud:r:RI::f:s:", "utc=u", "universal=u", "date:=d", "reference:=r", "rfc-email=R", "iso-8601::=I", "rfc-3339:=rfc")
	when, format := p.Tree.Epoch(), "%a %b %e %H:%M:%S UTC %Y"
	for _, o := range opts {
		switch o.name {
		case "d":
			t, ok := parseTime(p, o.value)
			if !ok {
				p.Unsupported("the date %q", o.value)
			}
			when = t
		case "r":
			n, err := p.Stat(o.value)
			if err != nil {
				p.Errorf("%s: %s", o.value, shell.Reason(err))
				return 1
			}
			when = n.ModTime
		case "R":
			format = "%a, %d %b %Y %H:%M:%S +0000"
		case "I":
			format = map[string]string{"": "%F", "date": "%F", "seconds": "%FT%T+00:00", "s": "%FT%T+00:00", "minutes": "%FT%R+00:00"}[o.value]
			if format == "" {
				p.Unsupported("--iso-8601=%s", o.value)
			}
		case "f", "s", "rfc":
			p.Unsupported("option %s", o.name)
		}
	}
	for _, a := range args {
		f, ok := strings.CutPrefix(a, "+")
		if !ok {
			p.Unsupported("setting the clock")
		}
		format = f
	}
	fmt.Fprintln(p.Stdout, formatTime(when, format))
	return 0
}

// expr evaluates expressions as expr(1).
func expr(_ context.Context, p *shell.Process) int {
	args := p.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	e := &exprParser{args: args}
	if len(args) == 0 {
		e.err = "missing operand"
	}
	v := e.or(true)
	if e.err == "" && len(e.args) > 0 {
		e.err = fmt.Sprintf("syntax error: unexpected argument '%s'", e.args[0])
	}
	if e.err != "" {
		p.Errorf("%s", e.err)
		return max(2, e.code)
	}
	fmt.Fprintln(p.Stdout, v)
	if exprNull(v) {
		return 1
	}
	return 0
}

type exprParser struct {
	args  []string
	err   string
	code  int
	depth int
}

// exprNull reports whether a value counts as false: empty or zero.
func exprNull(s string) bool {
	if s == "" {
		return true
	}
	n, ok := exprNumber(s)
	return ok && n.Sign() == 0
}

func exprNumber(s string) (*big.Int, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > 1000 {
		return nil, false
	}
	return new(big.Int).SetString(s, 10)
}

func (e *exprParser) fail(format string, args ...any) string {
	if e.err == "" {
		e.err = fmt.Sprintf(format, args...)
	}
	e.args = nil
	return ""
}

func (e *exprParser) accept(ops ...string) string {
	if len(e.args) > 0 && slices.Contains(ops, e.args[0]) {
		op := e.args[0]
		e.args = e.args[1:]
		return op
	}
	return ""
}

func (e *exprParser) or(live bool) string {
	if e.depth++; e.depth > 200 {
		return e.fail("expression too deep")
	}
	defer func() { e.depth-- }()
	left := e.and(live)
	for e.accept("|") != "" {
		right := e.and(live && exprNull(left))
		if exprNull(left) {
			if left = right; exprNull(left) {
				left = "0"
			}
		}
	}
	return left
}

func (e *exprParser) and(live bool) string {
	left := e.comparison(live)
	for e.accept("&") != "" {
		right := e.comparison(live && !exprNull(left))
		if exprNull(left) || exprNull(right) {
			left = "0"
		}
	}
	return left
}

func (e *exprParser) comparison(live bool) string {
	left := e.sum(live)
	for {
		op := e.accept("<", "<=", "=", "==", "!=", ">=", ">")
		if op == "" {
			return left
		}
		right := e.sum(live)
		c := strings.Compare(left, right)
		x, okX := exprNumber(left)
		y, okY := exprNumber(right)
		if okX && okY {
			c = x.Cmp(y)
		}
		ok := false
		switch op {
		case "<":
			ok = c < 0
		case "<=":
			ok = c <= 0
		case "=", "==":
			ok = c == 0
		case "!=":
			ok = c != 0
		case ">=":
			ok = c >= 0
		case ">":
			ok = c > 0
		}
		left = "0"
		if ok {
			left = "1"
		}
	}
}

func (e *exprParser) sum(live bool) string {
	left := e.product(live)
	for {
		op := e.accept("+", "-")
		if op == "" {
			return left
		}
		left = e.compute(op, left, e.product(live), live)
	}
}

func (e *exprParser) product(live bool) string {
	left := e.match(live)
	for {
		op := e.accept("*", "/", "%")
		if op == "" {
			return left
		}
		left = e.compute(op, left, e.match(live), live)
	}
}

func (e *exprParser) compute(op, a, b string, live bool) string {
	if !live {
		return "0"
	}
	x, okX := exprNumber(a)
	y, okY := exprNumber(b)
	if !okX || !okY {
		return e.fail("non-integer argument")
	}
	r := new(big.Int)
	switch op {
	case "+":
		r.Add(x, y)
	case "-":
		r.Sub(x, y)
	case "*":
		r.Mul(x, y)
	default:
		if y.Sign() == 0 {
			return e.fail("division by zero")
		}
		if op == "/" {
			r.Quo(x, y)
		} else {
			r.Rem(x, y)
		}
	}
	return r.String()
}

func (e *exprParser) match(live bool) string {
	left := e.primary(live)
	for e.accept(":") != "" {
		left = e.regex(left, e.primary(live))
	}
	return left
}

func (e *exprParser) regex(s, expr string) string {
	re, err := compile(expr, false, false)
	if err != nil {
		return e.fail("%s", err)
	}
	m := re.find(s, 0)
	if m != nil && m[0] != 0 { // anchored at the start
		if re, err = compile("^\\("+expr+"\\)", false, false); err != nil {
			return e.fail("%s", err)
		}
		if m = re.find(s, 0); m != nil {
			m = append(m[:2:2], m[4:]...)
		}
	}
	if strings.Contains(expr, `\(`) {
		if len(m) < 4 || m[2] < 0 {
			return ""
		}
		return s[m[2]:m[3]]
	}
	if m == nil {
		return "0"
	}
	return strconv.Itoa(m[1])
}

func (e *exprParser) primary(live bool) string {
	if len(e.args) == 0 {
		return e.fail("syntax error: missing argument after ''")
	}
	word := e.args[0]
	e.args = e.args[1:]
	switch word {
	case "(":
		v := e.or(live)
		if e.accept(")") == "" {
			return e.fail("syntax error: expecting ')'")
		}
		return v
	case ")":
		return e.fail("syntax error: unexpected ')'")
	case "+":
		if len(e.args) > 0 {
			word = e.args[0]
			e.args = e.args[1:]
			return word
		}
	case "length":
		if len(e.args) > 0 {
			return strconv.Itoa(len(e.primary(live)))
		}
	case "match":
		if len(e.args) > 1 {
			s := e.primary(live)
			return e.regex(s, e.primary(live))
		}
	case "index":
		if len(e.args) > 1 {
			s := e.primary(live)
			return strconv.Itoa(strings.IndexAny(s, e.primary(live)) + 1)
		}
	case "substr":
		if len(e.args) > 2 {
			s := e.primary(live)
			from, err1 := strconv.Atoi(e.primary(live))
			n, err2 := strconv.Atoi(e.primary(live))
			if err1 != nil || err2 != nil || from < 1 || n < 1 || from > len(s) {
				return ""
			}
			return s[from-1 : from-1+min(n, len(s)-from+1)]
		}
	}
	return word
}
