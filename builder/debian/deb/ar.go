package deb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// member is a compressed tar inside the .deb.
type member struct {
	name string // data.tar.xz
	*io.SectionReader
}

const (
	arMagic  = "!<arch>\n"
	arHeader = 60 // ar(5)
)

// members finds control.tar and data.tar, which deb(5) wants in this order
// after debian-binary; members whose name starts with "_" may stand between.
func members(r io.ReaderAt, size int64) (control, data member, err error) {
	magic := make([]byte, len(arMagic))
	if _, err := r.ReadAt(magic, 0); err != nil && err != io.EOF {
		return control, data, fmt.Errorf("cannot read: %w", err)
	}
	if string(magic) != arMagic {
		return control, data, errors.New("not a .deb: no ar archive")
	}
	offset := int64(len(arMagic))
	for first := true; ; first = false {
		if offset >= size {
			switch {
			case first:
				return control, data, errors.New("no member debian-binary")
			case control.name == "":
				return control, data, errors.New("no member control.tar")
			}
			return control, data, errors.New("no member data.tar")
		}
		m, err := arMember(r, offset, size)
		if err != nil {
			return control, data, err
		}
		offset += arHeader + m.Size() + m.Size()&1
		switch {
		case first:
			if m.name != "debian-binary" {
				return control, data, fmt.Errorf("first member is %q, not debian-binary", m.name)
			}
			version, err := io.ReadAll(io.LimitReader(m, 64))
			if err != nil {
				return control, data, fmt.Errorf("cannot read debian-binary: %w", err)
			}
			if !bytes.HasPrefix(version, []byte("2.")) {
				return control, data, fmt.Errorf("format version %q is not 2.x", bytes.TrimSpace(version))
			}
		case strings.HasPrefix(m.name, "_"):
		case control.name == "":
			if !strings.HasPrefix(m.name, "control.tar") {
				return control, data, fmt.Errorf("member %q where control.tar should be", m.name)
			}
			control = m
		default:
			if !strings.HasPrefix(m.name, "data.tar") {
				return control, data, fmt.Errorf("member %q where data.tar should be", m.name)
			}
			return control, m, nil
		}
	}
}

func arMember(r io.ReaderAt, offset, size int64) (member, error) {
	header := make([]byte, arHeader)
	if size-offset < arHeader {
		return member{}, fmt.Errorf("truncated: %d bytes where a member's header should be", size-offset)
	}
	if _, err := r.ReadAt(header, offset); err != nil {
		return member{}, fmt.Errorf("cannot read: %w", err)
	}
	if string(header[58:]) != "`\n" {
		return member{}, fmt.Errorf("no member header at offset %d", offset)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	length, err := strconv.ParseUint(strings.TrimRight(string(header[48:58]), " "), 10, 62)
	if err != nil {
		return member{}, fmt.Errorf("member %q: size is no number", name)
	}
	start := offset + arHeader
	if int64(length) > size-start {
		return member{}, fmt.Errorf("truncated: member %q has %d of its %d bytes", name, size-start, length)
	}
	return member{name, io.NewSectionReader(r, start, int64(length))}, nil
}
