package hd44780sim

import (
	"image"
	"image/color"

	"golang.org/x/image/font"
	"golang.org/x/image/font/inconsolata"
	"golang.org/x/image/math/fixed"
)

// Sizes of the picture in pixels: a character is 8 by 16 of them, before it is
// magnified.
const (
	cellWidth, cellHeight = 10, 20
	frame                 = 12
	magnify               = 3
)

// Picture shows the module as a person sees it. The letters are those of a
// common terminal font, glyphs of one's own are drawn dot by dot.
func (m *Module) Picture() image.Image {
	background, ink := color.RGBA{0x20, 0x48, 0xd0, 0xff}, color.RGBA{0xf0, 0xf6, 0xff, 0xff}
	if !m.Light() {
		background, ink = color.RGBA{0x10, 0x1c, 0x40, 0xff}, color.RGBA{0x40, 0x4c, 0x70, 0xff}
	}
	small := image.NewRGBA(image.Rect(0, 0, m.columns*cellWidth+2*frame, m.rows*cellHeight+2*frame))
	for y := range small.Rect.Dy() {
		for x := range small.Rect.Dx() {
			c := background
			if x < frame/2 || y < frame/2 || x >= small.Rect.Dx()-frame/2 || y >= small.Rect.Dy()-frame/2 {
				c = color.RGBA{0x18, 0x18, 0x18, 0xff}
			}
			small.SetRGBA(x, y, c)
		}
	}
	for row, line := range m.Lines() {
		column := 0
		for _, r := range line {
			left, top := frame+column*cellWidth, frame+row*cellHeight
			if r >= 0xe000 {
				m.drawGlyph(small, left, top, int(r-0xe000), ink)
			} else {
				d := font.Drawer{Dst: small, Src: image.NewUniform(ink), Face: inconsolata.Regular8x16,
					Dot: fixed.P(left+1, top+2+inconsolata.Regular8x16.Ascent)}
				d.DrawString(string(r))
			}
			column++
		}
	}
	large := image.NewRGBA(image.Rect(0, 0, small.Rect.Dx()*magnify, small.Rect.Dy()*magnify))
	for y := range large.Rect.Dy() {
		for x := range large.Rect.Dx() {
			large.SetRGBA(x, y, small.RGBAAt(x/magnify, y/magnify))
		}
	}
	return large
}

func (m *Module) drawGlyph(img *image.RGBA, left, top, n int, ink color.RGBA) {
	for y, row := range m.Glyph(n & 7) {
		for x := range 5 {
			if row>>(4-x)&1 == 0 {
				continue
			}
			for dot := range 4 { // 2 by 2 pixels
				img.SetRGBA(left+x*2+dot%2, top+2+y*2+dot/2, ink)
			}
		}
	}
}
