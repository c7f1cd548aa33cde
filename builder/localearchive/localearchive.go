// Package localearchive adds locales to /usr/lib/locale/locale-archive as
// localedef(1) does.
//
// What it does not do is compile a locale from its source: glibc's own
// package locales-all holds every locale of the same version compiled, and
// those bytes are what localedef would make. ReadCategories takes them from
// that package's tree, which need not be installed.
//
// The archive is that of glibc 2.3 to 2.41 on little-endian machines, byte for
// byte (locale/locarchive.h and locale/programs/locarchive.c in glibc's
// source). Not supported: more locales than the archive's first tables hold,
// some hundred.
package localearchive

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

const (
	archivePath = "/usr/lib/locale/locale-archive"
	aliasPath   = "/usr/share/locale/locale.alias"
)

// The categories in the order of <locale.h>. LC_ALL holds the small ones.
const (
	ctype         = 0
	all           = 6
	categoryCount = 13
)

var files = [categoryCount]string{
	"LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES/SYS_LC_MESSAGES", "",
	"LC_PAPER", "LC_NAME", "LC_ADDRESS", "LC_TELEPHONE", "LC_MEASUREMENT", "LC_IDENTIFICATION",
}

// Categories are a locale's compiled categories.
type Categories [categoryCount][]byte

// ReadCategories reads a compiled locale from the tree of package locales-all.
// name is as localedef takes it: "de_DE.UTF-8".
func ReadCategories(t *tree.Tree, name string) (Categories, error) {
	var c Categories
	dir := "/usr/lib/locale/" + parseName(name).normalized()
	for i, file := range files {
		if i == all {
			continue
		}
		data, err := t.ReadFile(dir + "/" + file)
		if err != nil {
			return c, fmt.Errorf("cannot read locale %s: %w", name, err)
		}
		c[i] = data
	}
	return c, nil
}

// Add adds a locale and its aliases to the tree's archive, which it makes if
// there is none. A locale that is there already stays.
func Add(t *tree.Tree, name string, c Categories) error {
	data, err := t.ReadFile(archivePath)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = empty(), nil
	}
	if err != nil {
		return fmt.Errorf("cannot add locale %s: %w", name, err)
	}
	a, err := open(data)
	if err != nil {
		return fmt.Errorf("%s: %w", archivePath, err)
	}
	aliases, err := t.ReadFile(aliasPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot add locale %s: %w", name, err)
	}
	if err := a.addWithAliases(name, c, string(aliases)); err != nil {
		return fmt.Errorf("%s: cannot add locale %s: %w", archivePath, name, err)
	}
	if err := t.MkdirAll("/usr/lib/locale", 0o755); err != nil {
		return fmt.Errorf("cannot add locale %s: %w", name, err)
	}
	err = t.Put(archivePath, &tree.Inode{
		Mode:    tree.TypeRegular | 0o644,
		ModTime: t.Epoch(),
		Content: tree.Bytes(a.data),
	})
	if err != nil {
		return fmt.Errorf("cannot add locale %s: %w", name, err)
	}
	return nil
}

// localeName is language[_territory][.codeset][@modifier].
type localeName struct{ language, territory, codeset, modifier string }

func parseName(name string) localeName {
	var n localeName
	rest, modifier, _ := strings.Cut(name, "@")
	n.modifier = modifier
	rest, codeset, _ := strings.Cut(rest, ".")
	n.codeset = normalizeCodeset(codeset)
	n.language, n.territory, _ = strings.Cut(rest, "_")
	return n
}

// normalizeCodeset makes "utf8" of "UTF-8" and "iso88591" of "8859-1".
func normalizeCodeset(codeset string) string {
	var b strings.Builder
	onlyDigits := true
	for _, c := range []byte(codeset) {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
			fallthrough
		case 'a' <= c && c <= 'z':
			onlyDigits = false
			b.WriteByte(c)
		case '0' <= c && c <= '9':
			b.WriteByte(c)
		}
	}
	if onlyDigits && b.Len() > 0 {
		return "iso" + b.String()
	}
	return b.String()
}

func (n localeName) normalized() string {
	name := n.language
	for _, part := range []struct{ sign, text string }{{"_", n.territory}, {".", n.codeset}, {"@", n.modifier}} {
		if part.text != "" {
			name += part.sign + part.text
		}
	}
	return name
}

// codesetOf reads the codeset's name from a compiled LC_CTYPE.
func codesetOf(data []byte) (string, error) {
	const item = 8 + 4*14 // _NL_CTYPE_CODESET_NAME behind magic and count
	if len(data) >= item+4 {
		at := binary.LittleEndian.Uint32(data[item:])
		if uint64(at) < uint64(len(data)) {
			text, _, ok := bytes.Cut(data[at:], []byte{0})
			if ok {
				return string(text), nil
			}
		}
	}
	return "", errors.New("cannot find the codeset in LC_CTYPE")
}

// Layout of locarchive.h: a header, three tables, the strings, then the data.
const (
	magic        = 0xde020109
	headerSize   = 56
	nameSize     = 12  // hash, string, record
	recordSize   = 108 // references, then place and length of each category
	sumSize      = 20  // MD5, place
	nameSlots    = 907 // the next prime after 900
	stringBytes  = 7500
	recordSlots  = 420
	sumSlots     = 2003 // the next prime after 2000
	page         = 4096
	maxSmall     = 2 * page
	nameOffset   = headerSize
	stringOffset = nameOffset + nameSlots*nameSize
	recordOffset = stringOffset + stringBytes
	sumOffset    = recordOffset + recordSlots*recordSize
	tablesEnd    = sumOffset + sumSlots*sumSize
)

// Places in the header.
const (
	namesUsed   = 12
	stringsUsed = 24
	recordsUsed = 36
	sumsUsed    = 48
)

var errFull = errors.New("cannot enlarge the archive's tables")

// archive is the file; its tables are changed in place.
type archive struct{ data []byte }

func empty() []byte {
	b := make([]byte, tablesEnd)
	for i, v := range []uint32{
		magic, 0,
		nameOffset, 0, nameSlots,
		stringOffset, 0, stringBytes,
		recordOffset, 0, recordSlots,
		sumOffset, 0, sumSlots,
	} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	return b
}

// open takes an archive whose tables have their first size.
func open(data []byte) (*archive, error) {
	a := &archive{slices.Clone(data)}
	if len(data) < tablesEnd {
		return nil, errors.New("cannot read it as a locale archive")
	}
	want := empty()
	for _, used := range []int{4, namesUsed, stringsUsed, recordsUsed, sumsUsed} {
		copy(want[used:used+4], data[used:])
	}
	if !bytes.Equal(data[:headerSize], want[:headerSize]) {
		return nil, errors.New("cannot read it as a locale archive of the first size")
	}
	if a.get(namesUsed) > nameSlots*3/4+1 || a.get(stringsUsed) > stringBytes ||
		a.get(recordsUsed) > recordSlots || a.get(sumsUsed) > sumSlots*3/4+1 {
		return nil, errors.New("cannot read it as a locale archive: its tables are overfull")
	}
	return a, nil
}

func (a *archive) get(at int) int { return int(binary.LittleEndian.Uint32(a.data[at:])) }

func (a *archive) set(at, v int) { binary.LittleEndian.PutUint32(a.data[at:], uint32(v)) }

// addWithAliases adds a locale under its name with the codeset normalized, and
// what the lines of locale.alias(5) say about it.
func (a *archive) addWithAliases(name string, c Categories, aliases string) error {
	n := parseName(name)
	main := n.normalized()
	record, err := a.add(main, c)
	if err != nil || record == 0 {
		return err
	}
	if n.codeset == "" {
		codeset, err := codesetOf(c[ctype])
		if err != nil {
			return err
		}
		n.codeset = normalizeCodeset(codeset)
		if err := a.alias(n.normalized(), record); err != nil {
			return err
		}
	}
	for line := range strings.Lines(aliases) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0][0] == '#' {
			continue
		}
		if value := parseName(fields[1]); value == n || value.normalized() == main {
			if err := a.alias(fields[0], record); err != nil {
				return err
			}
		}
	}
	return nil
}

func hash(key string) uint32 {
	h := uint32(len(key))
	for i := range len(key) {
		h = h<<9 | h>>23
		h += uint32(key[i])
	}
	if h == 0 {
		return ^uint32(0)
	}
	return h
}

// slots iterates over a table's places for a hash, most likely first.
func slots(h uint32, offset, size, count int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		i, step := int(h%uint32(count)), 1+int(h%uint32(count-2))
		for range count {
			if !yield(offset + i*size) {
				return
			}
			if i += step; i >= count {
				i -= count
			}
		}
	}
}

// findName returns the place of a name in its table and whether it is there.
func (a *archive) findName(name string) (at int, found bool, err error) {
	h := hash(name)
	for at := range slots(h, nameOffset, nameSize, nameSlots) {
		text := a.get(at + 4)
		if text == 0 {
			return at, false, nil
		}
		if a.get(at) != int(h) || text < stringOffset || text >= recordOffset {
			continue
		}
		if bytes.HasPrefix(a.data[text:recordOffset], append([]byte(name), 0)) {
			return at, true, nil
		}
	}
	return 0, false, errFull
}

// insertName fills a place of the table of names.
func (a *archive) insertName(at int, name string, record int) error {
	used := a.get(stringsUsed)
	if used+len(name)+1 > stringBytes || 100*a.get(namesUsed) > 75*nameSlots {
		return errFull
	}
	copy(a.data[stringOffset+used:], name)
	a.set(at, int(hash(name)))
	a.set(at+4, stringOffset+used)
	a.set(at+8, record)
	a.set(stringsUsed, used+len(name)+1)
	a.set(namesUsed, a.get(namesUsed)+1)
	return nil
}

// alias adds another name for a record; a name that is there stays.
func (a *archive) alias(name string, record int) error {
	at, found, err := a.findName(name)
	if err != nil || found {
		return err
	}
	return a.insertName(at, name, record)
}

// add adds a locale and returns the place of its record, 0 if the name is
// there already.
func (a *archive) add(name string, c Categories) (int, error) {
	at, found, err := a.findName(name)
	if err != nil || found {
		return 0, err
	}
	small := gatherSmall(&c)
	var places [categoryCount]int
	wanted := 0
	for i := range c {
		if small[i] {
			continue
		}
		if places[i] = a.findData(i, c[i]); places[i] == 0 {
			wanted++
		}
	}
	if 100*(a.get(sumsUsed)+wanted) > 75*sumSlots || a.get(recordsUsed) == recordSlots {
		return 0, errFull
	}
	last := 0
	for i := range c {
		if !small[i] && places[i] == 0 {
			places[i] = a.appendData(c[i], i == all && last != len(a.data))
			last = len(a.data)
		}
	}
	next := places[all]
	for i := range c {
		if small[i] {
			places[i] = next
			next += roundUp(len(c[i]), 16)
		}
	}
	record := recordOffset + a.get(recordsUsed)*recordSize
	if err := a.insertName(at, name, record); err != nil {
		return 0, err
	}
	a.set(recordsUsed, a.get(recordsUsed)+1)
	a.set(record, 1)
	for i := range c {
		a.set(record+4+8*i, places[i])
		a.set(record+8+8*i, len(c[i]))
	}
	return record, nil
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// gatherSmall copies the small categories, smallest first while they fit into
// two pages, together into LC_ALL, and tells which they are.
func gatherSmall(c *Categories) (small [categoryCount]bool) {
	var order []int
	for i := range c {
		if i != all {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(c[a]), len(c[b])) })
	total := 0
	for _, i := range order {
		size := roundUp(len(c[i]), 16)
		if total+size > maxSmall {
			break
		}
		total += size
		small[i] = true
	}
	c[all] = make([]byte, 0, total)
	for i := range c {
		if small[i] {
			c[all] = append(c[all], c[i]...)
			c[all] = append(c[all], make([]byte, roundUp(len(c[i]), 16)-len(c[i]))...)
		}
	}
	return small
}

// findData returns the place of a category's bytes if another locale has the
// same, else 0.
func (a *archive) findData(category int, data []byte) int {
	sum := md5.Sum(data)
	for at := range slots(hash(string(sum[:])), sumOffset, sumSize, sumSlots) {
		place := a.get(at + 16)
		if place == 0 {
			return 0
		}
		if bytes.Equal(a.data[at:at+16], sum[:]) && a.hasData(category, place, data) {
			return place
		}
	}
	return 0
}

// hasData reports whether some record has these bytes as the same category.
func (a *archive) hasData(category, place int, data []byte) bool {
	for i := range a.get(recordsUsed) {
		record := recordOffset + i*recordSize
		if a.get(record+4+8*category) == place && a.get(record+8+8*category) == len(data) {
			return place <= len(a.data) && bytes.HasPrefix(a.data[place:], data)
		}
	}
	return false
}

// appendData puts bytes at the end of the file and notes their sum. A block of
// small categories that would cross more pages than it must begins a new one
// if the caller lets it.
func (a *archive) appendData(data []byte, mayAlign bool) int {
	end := len(a.data)
	if mayAlign && roundUp(end%page+len(data), page) > roundUp(len(data), page) {
		end = roundUp(end+1, page)
	}
	end = roundUp(end, 16)
	a.data = append(a.data, make([]byte, end-len(a.data))...)
	a.data = append(a.data, data...)

	sum := md5.Sum(data)
	for at := range slots(hash(string(sum[:])), sumOffset, sumSize, sumSlots) {
		if a.get(at+16) == 0 {
			copy(a.data[at:], sum[:])
			a.set(at+16, end)
			break
		}
	}
	a.set(sumsUsed, a.get(sumsUsed)+1)
	return end
}
