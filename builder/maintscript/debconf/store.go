package debconf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

const (
	dir           = "/var/cache/debconf"
	configFile    = dir + "/config.dat"
	passwordsFile = dir + "/passwords.dat"
	templatesFile = dir + "/templates.dat"
)

// item is a question or a template.
type item struct {
	owners    map[string]bool
	fields    map[string]string
	variables map[string]string
	flags     map[string]bool
	text      string // as last written; "" if changed since
}

func newItem() *item {
	return &item{owners: map[string]bool{}, fields: map[string]string{}, variables: map[string]string{}, flags: map[string]bool{}}
}

// file is one database of debconf's 822 format.
type file struct {
	path   string
	perm   uint32
	backup bool
	items  map[string]*item
	dirty  bool
	from   tree.Content // what it was read from or written as
}

// load reads the file unless its content is what is in memory.
func (f *file) load(t *tree.Tree) error {
	n, err := t.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		f.items, f.dirty, f.from = map[string]*item{}, false, nil
		return nil
	}
	if err != nil {
		return err
	}
	if f.items != nil && !f.dirty && f.from != nil && n.Content == f.from {
		return nil
	}
	text, err := t.ReadFile(f.path)
	if err != nil {
		return err
	}
	if f.items, err = parse(string(text)); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.dirty, f.from = false, n.Content
	return nil
}

func parse(text string) (map[string]*item, error) {
	items := map[string]*item{}
	name, i := "", newItem()
	inVariables := false
	flush := func() {
		if name != "" {
			items[name] = i
		}
		name, i, inVariables = "", newItem(), false
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			flush()
			continue
		}
		if inVariables && (line[0] == ' ' || line[0] == '\t') {
			key, value, _ := strings.Cut(strings.TrimLeft(line, " \t"), "=")
			i.variables[strings.TrimRight(key, " \t")] = unescape(strings.TrimPrefix(value, " "))
			continue
		}
		inVariables = false
		key, value, found := strings.Cut(line, ":")
		if !found {
			return nil, fmt.Errorf("%.60q is not a field", line)
		}
		key, value = strings.ToLower(key), strings.TrimPrefix(value, " ")
		switch key {
		case "name":
			name = value
		case "owners":
			for o := range strings.SplitSeq(value, ",") {
				i.owners[strings.TrimSpace(o)] = true
			}
		case "flags":
			for o := range strings.SplitSeq(value, ",") {
				i.flags[strings.TrimSpace(o)] = true
			}
		case "variables":
			inVariables = true
		default:
			i.fields[key] = unescape(value)
		}
	}
	flush()
	return items, nil
}

func unescape(s string) string { return strings.ReplaceAll(s, `\n`, "\n") }
func escape(s string) string   { return strings.ReplaceAll(s, "\n", `\n`) }

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (i *item) write(name string) string {
	if i.text != "" {
		return i.text
	}
	var b strings.Builder
	b.WriteString("Name: " + name + "\n")
	for _, key := range slices.Sorted(maps.Keys(i.fields)) {
		b.WriteString(upperFirst(key) + ": " + escape(i.fields[key]) + "\n")
	}
	if len(i.owners) > 0 {
		b.WriteString("Owners: " + strings.Join(slices.Sorted(maps.Keys(i.owners)), ", ") + "\n")
	}
	var flags []string
	for f, on := range i.flags {
		if on {
			flags = append(flags, f)
		}
	}
	if slices.Sort(flags); flags != nil {
		b.WriteString("Flags: " + strings.Join(flags, ", ") + "\n")
	}
	if len(i.variables) > 0 {
		b.WriteString("Variables:\n")
		for _, key := range slices.Sorted(maps.Keys(i.variables)) {
			b.WriteString(" " + key + " = " + escape(i.variables[key]) + "\n")
		}
	}
	b.WriteByte('\n')
	i.text = b.String()
	return i.text
}

// save writes the file if something changed; the former one stays beside it.
func (f *file) save(t *tree.Tree) error {
	there := t.Exists(f.path)
	if !f.dirty && there {
		return nil
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.items)) {
		b.WriteString(f.items[name].write(name))
	}
	if err := t.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if there && f.backup {
		if err := t.Rename(f.path, f.path+"-old"); err != nil {
			return err
		}
	}
	content := tree.Bytes([]byte(b.String()))
	if err := t.WriteContent(f.path, content, f.perm); err != nil {
		return err
	}
	f.dirty, f.from = false, content
	return nil
}

func (f *file) touch(i *item) {
	i.text = ""
	f.dirty = true
}

func (f *file) addOwner(name, owner string) *item {
	i := f.items[name]
	if i == nil {
		i = newItem()
		f.items[name] = i
		f.touch(i)
	}
	if !i.owners[owner] {
		i.owners[owner] = true
		f.touch(i)
	}
	return i
}

// removeOwner takes an owner off; an item without owners goes.
func (f *file) removeOwner(name, owner string) {
	i := f.items[name]
	if i == nil {
		return
	}
	if i.owners[owner] {
		delete(i.owners, owner)
		f.touch(i)
	}
	if len(i.owners) == 0 {
		delete(f.items, name)
		f.dirty = true
	}
}

// Store is debconf's database in one tree.
type Store struct {
	t                            *tree.Tree
	config, passwords, templates file
}

// NewStore returns the tree's database; its files are read when needed.
func NewStore(t *tree.Tree) *Store {
	return &Store{
		t:         t,
		config:    file{path: configFile, perm: 0o644, backup: true},
		passwords: file{path: passwordsFile, perm: 0o600},
		templates: file{path: templatesFile, perm: 0o644, backup: true},
	}
}

func (s *Store) files() []*file { return []*file{&s.config, &s.passwords, &s.templates} }

func (s *Store) load() error {
	for _, f := range s.files() {
		if err := f.load(s.t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) save() error {
	for _, f := range s.files() {
		if err := f.save(s.t); err != nil {
			return err
		}
	}
	return nil
}

// question returns a question and the file it is in; nil if there is none.
func (s *Store) question(name string) (*item, *file) {
	if i := s.config.items[name]; i != nil {
		return i, &s.config
	}
	return s.passwords.items[name], &s.passwords
}

// addQuestion makes a question, or adds an owner to it.
func (s *Store) addQuestion(name, owner, kind, template string) *item {
	i, f := s.question(name)
	if i != nil {
		f.addOwner(name, owner)
		return i
	}
	f = &s.config
	if kind == "password" {
		f = &s.passwords
	}
	i = f.addOwner(name, owner)
	s.setTemplate(name, template)
	return i
}

func (s *Store) setTemplate(name, template string) {
	i, f := s.question(name)
	old := i.fields["template"]
	if old == template {
		return
	}
	if old != "" {
		s.templates.removeOwner(old, name)
	}
	i.fields["template"] = template
	f.touch(i)
	s.templates.addOwner(template, name)
}

// field returns what a template says in a field: in English, since images are
// built without a language.
func (s *Store) field(template, field string) (string, bool) {
	t := s.templates.items[template]
	if t == nil {
		return "", false
	}
	plain, _, dashed := strings.Cut(field, "-")
	for _, name := range []string{field + "-c.utf-8", field + "-en", field} {
		if v, found := t.fields[name]; found {
			return v, true
		}
	}
	if dashed {
		if v, found := t.fields[plain]; found {
			return v, true
		}
	}
	return "", true
}

// original is field without a translation to the locale.
func (s *Store) original(template, field string) string {
	t := s.templates.items[template]
	if t == nil {
		return ""
	}
	if v, found := t.fields[field+"-c"]; found {
		return v
	}
	return t.fields[field]
}

// value returns a question's answer, or its template's default.
func (s *Store) value(name string) string {
	i, _ := s.question(name)
	if i == nil {
		return ""
	}
	if v, found := i.fields["value"]; found {
		return v
	}
	v, _ := s.field(i.fields["template"], "default")
	return v
}

func (s *Store) setValue(name, value string) {
	if i, f := s.question(name); i != nil {
		i.fields["value"] = value
		f.touch(i)
	}
}

func (s *Store) setFlag(name, flag string, on bool) {
	if i, f := s.question(name); i != nil {
		i.flags[flag] = on
		f.touch(i)
	}
}

// expand fills a question's variables in.
func (s *Store) expand(name, text string) string {
	i, _ := s.question(name)
	var b strings.Builder
	for {
		start := strings.Index(text, "${")
		if start < 0 {
			break
		}
		end := strings.IndexAny(text[start+2:], "{}")
		if end <= 0 || text[start+2+end] != '}' {
			b.WriteString(text[:start+2])
			text = text[start+2:]
			continue
		}
		variable := text[start+2 : start+2+end]
		if start > 0 && text[start-1] == '\\' {
			b.WriteString(text[:start-1] + "${" + variable + "}")
		} else {
			b.WriteString(text[:start])
			if i != nil {
				b.WriteString(i.variables[variable])
			}
		}
		text = text[start+3+end:]
	}
	b.WriteString(text)
	return b.String()
}

// splitChoices splits a list at commas; a backslash keeps a comma or blank.
func splitChoices(s string) []string {
	var out []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == ',' || s[i+1] == ' '):
			i++
			b.WriteByte(s[i])
		case s[i] == ',' && i+1 < len(s) && strings.IndexByte(" \t\n", s[i+1]) >= 0:
			out = append(out, b.String())
			b.Reset()
			for i+1 < len(s) && strings.IndexByte(" \t\n", s[i+1]) >= 0 {
				i++
			}
		default:
			b.WriteByte(s[i])
		}
	}
	if b.Len() > 0 {
		out = append(out, b.String())
	}
	return out
}

// loadTemplates reads a package's templates file.
func (s *Store) loadTemplates(text, owner string) error {
	for _, stanza := range splitStanzas(text) {
		data, err := parseTemplate(stanza)
		if err != nil {
			return err
		}
		name, kind := data["template"], data["type"]
		if name == "" || kind == "" {
			return fmt.Errorf("template %q has no name or no type", name)
		}
		s.addQuestion(name, owner, kind, name)
		t := s.templates.addOwner(name, name)
		delete(data, "template")
		s.templates.touch(t)
		t.fields = data
	}
	return nil
}

func splitStanzas(text string) []string {
	var out []string
	for s := range strings.SplitSeq(text, "\n\n") {
		if s = strings.Trim(s, "\n"); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// parseTemplate reads one template (debconf-devel(7)); long descriptions are
// joined to paragraphs.
func parseTemplate(stanza string) (map[string]string, error) {
	data := map[string]string{}
	field, value, extended := "", "", ""
	save := func() error {
		if field == "" {
			return nil
		}
		if _, twice := data[field]; twice {
			return fmt.Errorf("template has the field %q twice", field)
		}
		data[field] = value
		if extended = strings.TrimRight(extended, "\n"); extended != "" {
			data["extended_"+field] = extended
		}
		return nil
	}
	join := func(with string) {
		if extended != "" && !strings.HasSuffix(extended, "\n") && !strings.HasSuffix(extended, " ") {
			extended += with
		}
	}
	for line := range strings.SplitSeq(stanza, "\n") {
		name, rest, found := strings.Cut(line, ":")
		switch {
		case found && fieldName(name):
			if err := save(); err != nil {
				return nil, err
			}
			field, extended = strings.ToLower(name), ""
			if rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
				rest = rest[1:]
			}
			value = strings.TrimRight(rest, " \t\r")
		case line == " ." || line == "\t.":
			extended += "\n\n"
		case len(line) > 1 && (line[0] == ' ' || line[0] == '\t') && (line[1] == ' ' || line[1] == '\t'):
			join("\n")
			extended += strings.TrimRight(line[1:], " \t\r") + "\n"
		case line != "" && (line[0] == ' ' || line[0] == '\t'):
			join(" ")
			extended += strings.TrimRight(line[1:], " \t\r")
		default:
			return nil, fmt.Errorf("template has the line %.60q", line)
		}
	}
	return data, save()
}

func fieldName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_@.", c) >= 0) {
			return false
		}
	}
	return true
}

// Preseed answers a question before any package asks it, as
// debconf-set-selections does. An empty kind means a string.
func (s *Store) Preseed(owner, name, kind, value string) error {
	if err := s.load(); err != nil {
		return err
	}
	if kind == "" {
		kind = "string"
	}
	if s.templates.items[name] == nil {
		t := s.templates.addOwner(name, name)
		t.fields["description"] = "Dummy template"
		t.fields["extended_description"] = "This is a fake template used to pre-seed the debconf database. If you are seeing this, something is probably wrong."
		t.fields["type"] = kind
	}
	s.addQuestion(name, owner, kind, name)
	s.setValue(name, value)
	s.setFlag(name, "seen", true)
	return s.save()
}
