package blueprint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

var (
	// The modules that exist, columns by rows.
	geometries = []string{"16x1", "16x2", "20x2", "20x4", "40x2"}
	dayHours   = regexp.MustCompile(`^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$`)
	glyphName  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
	glyphRow   = regexp.MustCompile(`^[#.]{5}$`)
)

// Limits of a display.
const (
	maxGlyphs = 8 // characters of one's own in an HD44780
	maxPages  = 32
	maxLines  = 16
	maxLine   = 1024 // bytes of a template
)

// textBlocks are the blocks of every kind of display.
var textBlocks = []hcl.BlockHeaderSchema{{Type: "page"}}

func (s *section) displays(nodes []*Node) []Display {
	var list []Display
	for _, b := range s.blocks.OfType("display") {
		d := Display{Kind: b.Labels[0], Seconds: 4, Range: b.DefRange}
		switch d.Kind {
		case "hd44780":
			d.Bus, d.Columns, d.Rows = 1, 16, 2
			s := s.section(b, s.ctx, []string{"on", "address", "bus", "columns", "rows", "seconds", "backlight", "farewell"},
				append([]hcl.BlockHeaderSchema{{Type: "glyph", LabelNames: []string{"name"}}}, textBlocks...)...)
			s.lcd(&d)
			d.Glyphs = s.glyphs()
			s.texts(&d)
			d.On = s.nodesOf(nodes, firstOf(nodes))
			s.checkBus(&d, nodes)
		case "console":
			d.Columns, d.Rows = 80, 25
			s := s.section(b, s.ctx, []string{"on", "seconds", "farewell"}, textBlocks...)
			s.texts(&d)
			d.On = s.nodesOf(nodes, names(nodes))
		default:
			kinds := []string{"hd44780", "console"}
			s.errorf(b.LabelRanges[0], "Unknown display", "There is no display %q.%s Choose from: %s.", d.Kind, didYouMean(d.Kind, kinds), strings.Join(kinds, ", "))
		}
		list = append(list, d)
	}
	return list
}

func (s *section) lcd(d *Display) {
	address := 0x27
	if s.integer("address", &address, 0, 0x7f) || !s.has("address") {
		d.Address = uint8(address)
		// The three pins of the expander choose one of eight addresses.
		if address < 0x20 || address > 0x3f || address > 0x27 && address < 0x38 {
			s.errorf(s.at("address"), "Impossible address",
				"No display has the address 0x%02x: a PCF8574 has 0x20 to 0x27, a PCF8574A 0x38 to 0x3f. i2cdetect on the node shows which.", address)
			d.Address = 0
		}
	}
	s.integer("bus", &d.Bus, 0, 22)
	s.integer("columns", &d.Columns, 1, 40)
	s.integer("rows", &d.Rows, 1, 4)
	if g := fmt.Sprintf("%dx%d", d.Columns, d.Rows); !slices.Contains(geometries, g) {
		s.errorf(s.at("columns"), "Unknown display size", "There is no display of %d columns and %d rows. Choose from: %s.", d.Columns, d.Rows, strings.Join(geometries, ", "))
	}
	if s.text("backlight", &d.Backlight) && d.Backlight != "on" && d.Backlight != "off" && !dayHours.MatchString(d.Backlight) {
		s.errorf(s.at("backlight"), "Invalid backlight", `"backlight" is "on", "off" or the hours it is on, like "07:00-22:00", not %q.`, d.Backlight)
	}
}

// checkBus finds boards whose header lacks the bus.
func (s *section) checkBus(d *Display, nodes []*Node) {
	for _, n := range nodes {
		board, ok := s.boardByName(n.Board)
		if _, has := board.I2C[d.Bus]; !ok || has || !slices.Contains(d.On, n.Name) {
			continue
		}
		hint := "It has none."
		if len(board.I2C) > 0 {
			hint = fmt.Sprintf("Its header has: %s.", joinInts(board.I2C))
		}
		at := s.at("bus")
		if !s.has("bus") {
			at = s.at("on")
		}
		s.errorf(at, "I2C bus missing", "The node %q is a %s, which has no I2C bus %d. %s", n.Name, n.Board, d.Bus, hint)
		return
	}
}

func joinInts[V any](m map[int]V) string {
	var list []int
	for n := range m {
		list = append(list, n)
	}
	slices.Sort(list)
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(list)), ", "), "[]")
}

func (s *section) texts(d *Display) {
	s.number("seconds", &d.Seconds, 1, 3600)
	if s.text("farewell", &d.Farewell) && len([]rune(d.Farewell)) > d.Columns {
		s.errorf(s.at("farewell"), "Text too long", "%q has %d characters, a line of the display %d.", d.Farewell, len([]rune(d.Farewell)), d.Columns)
	}
	var known []string
	for _, g := range d.Glyphs {
		known = append(known, g.Name)
	}
	for _, b := range s.blocks.OfType("page") {
		s := s.section(b, s.ctx, []string{"lines!"})
		var p Page
		if s.list("lines", &p.Lines) {
			s.lines(p.Lines, known)
		}
		d.Pages = append(d.Pages, p)
	}
	if len(d.Pages) > maxPages {
		s.errorf(s.header, "Too many pages", "A display shows up to %d pages.", maxPages)
	}
}

func (s *section) lines(lines, glyphs []string) {
	if len(lines) == 0 || len(lines) > maxLines {
		s.errorf(s.at("lines"), "Invalid page", "A page has 1 to %d lines.", maxLines)
		return
	}
	for i, line := range lines {
		if len(line) > maxLine {
			s.errorf(s.element("lines", i), "Invalid line", "A line has up to %d bytes.", maxLine)
			continue
		}
		if s.CheckLine == nil {
			continue
		}
		if offset, why := s.CheckLine(line, glyphs); why != "" {
			at, exact := s.inText("lines", i, line, offset)
			if !exact { // the columns of the source are others
				why = fmt.Sprintf("column %d: %s", offset+1, why)
			}
			s.errorf(at, "Invalid line", "A display's line is a template of Go's text/template; %s.", why)
		}
	}
}

// inText is where a byte of the list's i-th text stands in the source, if it
// is written there as it is.
func (s *section) inText(name string, i int, text string, offset int) (hcl.Range, bool) {
	whole := s.element(name, i)
	tuple, ok := s.attrs[name].Expr.(*hclsyntax.TupleConsExpr)
	if !ok || i >= len(tuple.Exprs) {
		return whole, false
	}
	t, ok := tuple.Exprs[i].(*hclsyntax.TemplateExpr)
	if !ok || len(t.Parts) != 1 {
		return whole, false
	}
	literal, ok := t.Parts[0].(*hclsyntax.LiteralValueExpr)
	written := t.Parts[0].Range()
	if !ok || literal.Val.Type() != cty.String || written.End.Byte-written.Start.Byte != len(text) {
		return whole, false // with escapes it is longer
	}
	at := written
	at.Start.Byte += offset
	at.Start.Column += len([]rune(text[:offset]))
	return at, true
}

// glyphs reads the characters of the user's own.
func (s *section) glyphs() []Glyph {
	var list []Glyph
	seen := map[string]hcl.Range{}
	for i, b := range s.blocks.OfType("glyph") {
		g := Glyph{Name: b.Labels[0]}
		if !glyphName.MatchString(g.Name) {
			s.errorf(b.LabelRanges[0], "Invalid glyph name", "%q can't be a glyph's name: use up to 32 of a-z, 0-9, '-' and '_', beginning with a letter.", g.Name)
		}
		if first, ok := seen[g.Name]; ok {
			s.errorf(b.DefRange, "Duplicate glyph", "The glyph %q stands already at %s.", g.Name, first)
		}
		seen[g.Name] = b.DefRange
		if i == maxGlyphs {
			s.errorf(b.DefRange, "Too many glyphs", "A display has room for %d glyphs.", maxGlyphs)
		}
		s := s.section(b, s.ctx, []string{"rows!"})
		if s.list("rows", &g.Rows) {
			if len(g.Rows) != 8 {
				s.errorf(s.at("rows"), "Invalid glyph", "A glyph has 8 rows, this one %d.", len(g.Rows))
			}
			s.each("rows", "Invalid glyph", g.Rows, func(row string) string {
				if glyphRow.MatchString(row) {
					return ""
				}
				return fmt.Sprintf("A row of a glyph has five dots, # for dark and . for light, like \".###.\"; this is %q.", row)
			})
		}
		list = append(list, g)
	}
	return list
}

func firstOf(nodes []*Node) []string {
	if len(nodes) == 0 {
		return nil
	}
	return []string{nodes[0].Name}
}
