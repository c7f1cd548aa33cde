// Package journalcatalog compiles the journal's message catalog as
// "journalctl --update-catalog" does: the .catalog files become
// /var/lib/systemd/catalog/database, an index by message and language.
//
// The text format is that of systemd's "Journal Message Catalogs"
// (https://systemd.io/CATALOG); the database that of systemd 196 to 257, byte
// for byte (systemd's src/libsystemd/sd-journal/catalog.c).
//
// Not supported: line ends other than a line feed.
package journalcatalog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/dropin"
	"github.com/picube/picube-build/builder/strbuf"
	"github.com/picube/picube-build/builder/tree"
)

const databasePath = "/var/lib/systemd/catalog/database"

// Update writes the database anew; without any message it leaves what is
// there.
func Update(t *tree.Tree) error {
	var c catalog
	for _, file := range dropin.List(t, ".catalog", "/usr/local/lib/systemd/catalog", "/usr/lib/systemd/catalog") {
		data, err := t.ReadFile(file)
		if err == nil {
			err = c.readFile(data, fileLanguage(path.Base(file)))
		}
		if err != nil {
			return fmt.Errorf("catalog %s: %w", file, err)
		}
	}
	if len(c.messages) == 0 {
		return nil
	}
	if err := t.MkdirAll(path.Dir(databasePath), 0o755); err != nil {
		return fmt.Errorf("cannot write the journal catalog: %w", err)
	}
	err := t.Put(databasePath, &tree.Inode{
		Mode:    tree.TypeRegular | 0o644,
		ModTime: t.Epoch(),
		Content: tree.Bytes(c.encode()),
	})
	if err != nil {
		return fmt.Errorf("cannot write the journal catalog: %w", err)
	}
	return nil
}

const maxLanguage = 31 // its field has 32 bytes, one of them NUL

// key identifies a message; the language is empty for the default.
type key struct {
	id       [16]byte
	language string
}

type message struct {
	key
	text string
}

// catalog keeps messages in the order in which they were first met.
type catalog struct {
	messages []message
	index    map[key]int
}

// fileLanguage returns "de" for "systemd.de.catalog", "" for
// "systemd.catalog".
func fileLanguage(name string) string {
	name = strings.TrimSuffix(name, ".catalog")
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 || len(name)-dot > maxLanguage+1 {
		return ""
	}
	return name[dot+1:]
}

func (c *catalog) readFile(data []byte, language string) error {
	var text strings.Builder
	var current key
	begun, afterEmpty := false, true
	finish := func(line int) error {
		if !begun {
			return nil
		}
		if text.Len() == 0 {
			return fmt.Errorf("line %d: cannot take a message without text", line)
		}
		c.add(message{current, text.String()})
		text.Reset()
		return nil
	}
	number := 0
	for raw := range bytes.Lines(data) {
		number++
		line, _, _ := strings.Cut(strings.TrimSuffix(string(raw), "\n"), "\x00")
		if line == "" {
			afterEmpty = true
			continue
		}
		if line[0] == '#' || line[0] == ';' {
			continue
		}
		if id, rest, ok := parseHeader(line); ok && afterEmpty {
			if err := finish(number); err != nil {
				return err
			}
			current = key{id, language}
			if rest != "" {
				own := strings.Trim(rest, " \t\n\r\v\f")
				if len(own) < 2 || len(own) > maxLanguage {
					return fmt.Errorf("line %d: cannot take %q as a language", number, own)
				}
				current.language = own
			}
			begun, afterEmpty = true, false
			continue
		}
		if !begun {
			return fmt.Errorf("line %d: cannot take text before the first message", number)
		}
		if afterEmpty {
			text.WriteByte('\n')
		}
		text.WriteString(line)
		text.WriteByte('\n')
		afterEmpty = false
	}
	return finish(number)
}

// parseHeader takes "-- f77379a8490b408bbe5f6940505a777b" or the same with a
// language behind.
func parseHeader(line string) (id [16]byte, rest string, ok bool) {
	const start, end = 3, 3 + 32
	if len(line) < end || line[:start] != "-- " || len(line) > end && line[end] != ' ' {
		return id, "", false
	}
	if _, err := hex.Decode(id[:], []byte(line[start:end])); err != nil {
		return id, "", false
	}
	return id, line[end:], true
}

// add keeps a message. One that is there already gets the new headers before
// its own, and the new body if there is one.
func (c *catalog) add(m message) {
	i, seen := c.index[m.key]
	if !seen {
		if c.index == nil {
			c.index = map[key]int{}
		}
		c.index[m.key] = len(c.messages)
		c.messages = append(c.messages, m)
		return
	}
	newHead, newBody := splitText(m.text)
	oldHead, oldBody := splitText(c.messages[i].text)
	if newBody == "" {
		newBody = oldBody
	}
	c.messages[i].text = newHead + oldHead + newBody
}

// splitText separates the header lines from the body, which begins with an
// empty line.
func splitText(text string) (head, body string) {
	end := 0
	for {
		line := strings.IndexByte(text[end:], '\n')
		if line <= 0 {
			return text[:end], text[end:]
		}
		end += line + 1
	}
}

// encode returns the file: header, sorted index, strings.
func (c *catalog) encode() []byte {
	const headerSize, itemSize = 40, 56
	buffer := strbuf.New()
	type item struct {
		key
		offset int
	}
	items := make([]item, len(c.messages))
	for i, m := range c.messages {
		items[i] = item{m.key, buffer.Add(m.text)}
	}
	slices.SortFunc(items, func(a, b item) int {
		if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
			return c
		}
		return strings.Compare(a.language, b.language)
	})
	le := binary.LittleEndian
	b := []byte("RHHHKSLP")
	b = le.AppendUint64(b, 0) // compatible and incompatible flags
	b = le.AppendUint64(b, headerSize)
	b = le.AppendUint64(b, uint64(len(items)))
	b = le.AppendUint64(b, itemSize)
	for _, i := range items {
		b = append(b, i.id[:]...)
		var language [maxLanguage + 1]byte
		copy(language[:], i.language)
		b = append(b, language[:]...)
		b = le.AppendUint64(b, uint64(i.offset))
	}
	return append(b, buffer.Bytes()...)
}
