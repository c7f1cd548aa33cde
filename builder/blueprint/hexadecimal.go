package blueprint

import (
	"bytes"
	"regexp"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// The longest hexadecimal number whose decimal form isn't longer than itself.
var hexDigits = regexp.MustCompile(`^[xX][0-9a-fA-F]{1,8}$`)

// hexNumbers finds the hexadecimal numbers of a source. hcl's scanner sees
// each as the number 0 and, touching it, a name that starts with x.
func hexNumbers(path string, src []byte) []hcl.Range {
	tokens, _ := hclsyntax.LexConfig(src, path, hcl.InitialPos)
	var found []hcl.Range
	for i := 1; i < len(tokens); i++ {
		zero, name := tokens[i-1], tokens[i]
		if zero.Type == hclsyntax.TokenNumberLit && string(zero.Bytes) == "0" &&
			name.Type == hclsyntax.TokenIdent && zero.Range.End.Byte == name.Range.Start.Byte &&
			(name.Bytes[0] == 'x' || name.Bytes[0] == 'X') {
			found = append(found, hcl.RangeBetween(zero.Range, name.Range))
		}
	}
	return found
}

// decimal rewrites hexadecimal numbers in place, so that every other byte
// keeps its line and column.
func decimal(path string, src []byte) ([]byte, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	ranges := hexNumbers(path, src)
	if len(ranges) == 0 {
		return src, nil
	}
	out := bytes.Clone(src)
	for _, r := range ranges {
		field := out[r.Start.Byte:r.End.Byte]
		var n uint64
		if hexDigits.Match(field[1:]) {
			n, _ = strconv.ParseUint(string(field[2:]), 16, 64)
		} else {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Invalid hexadecimal number",
				Detail:   "A hexadecimal number is 0x and one to eight of the digits 0-9 and a-f.",
				Subject:  r.Ptr(),
			})
		}
		copy(field, bytes.Repeat([]byte(" "), len(field)))
		strconv.AppendUint(field[:0], n, 10)
	}
	return out, diags
}

// Format lays a blueprint out in HCL's usual way. Only its syntax is checked.
func Format(path string, src []byte) ([]byte, hcl.Diagnostics) {
	p := &parser{path: path}
	if p.parseFile(path, src) == nil {
		return nil, p.diags
	}
	ranges := hexNumbers(path, src)
	if len(ranges) == 0 {
		return hclwrite.Format(src), nil
	}
	// The formatter would split 0x27 into two words, so it sees zeros of the
	// same width; number by number they are put back.
	masked := bytes.Clone(src)
	for _, r := range ranges {
		field := masked[r.Start.Byte:r.End.Byte]
		copy(field, bytes.Repeat([]byte("0"), len(field)))
	}
	before := numbers(masked)
	formatted := hclwrite.Format(masked)
	for i, r := range numbers(formatted) {
		copy(formatted[r.Start.Byte:r.End.Byte], src[before[i].Start.Byte:before[i].End.Byte])
	}
	return formatted, nil
}

func numbers(src []byte) []hcl.Range {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	var found []hcl.Range
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenNumberLit {
			found = append(found, t.Range)
		}
	}
	return found
}
