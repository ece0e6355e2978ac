// SPDX-License-Identifier: MIT
#include "vmm/monitor/text_filter.hpp"

namespace hv {
namespace {

enum Ascii : std::uint8_t {
    BEL = 0x07,
    BS = 0x08,
    HT = 0x09,
    LF = 0x0a,
    CR = 0x0d,
    CAN = 0x18,
    SUB = 0x1a,
    ESC = 0x1b,
    DEL = 0x7f
};

}  // namespace

std::string_view TextFilter::feed(char c) {
    out_size_ = 0;
    const auto byte = static_cast<std::uint8_t>(c);
    if (utf8_left_ > 0 && continue_utf8(byte))
        return {out_.data(), out_size_};
    // A line end is never part of a sequence: one that is not finished must not swallow what follows.
    if (byte == LF || byte == CR) {
        state_ = State::text;
        put(c);
    } else if (byte == ESC) {
        state_ = State::escape;
        sequence_size_ = 0;
        sequence_[sequence_size_++] = c;
    } else if (byte == CAN || byte == SUB) {
        state_ = State::text;
    } else {
        switch (state_) {
        case State::text: feed_text(byte); break;
        case State::escape: feed_escape(byte); break;
        case State::control_sequence: feed_control_sequence(byte); break;
        case State::control_string:  // ends with BEL, or with ESC and a backslash
            if (byte == BEL)
                state_ = State::text;
            break;
        }
    }
    return {out_.data(), out_size_};
}

void TextFilter::put_sequence() {
    for (std::size_t i = 0; i < sequence_size_; ++i)
        put(sequence_[i]);
}

void TextFilter::feed_text(std::uint8_t byte) {
    if (byte >= 0x80)
        begin_utf8(byte);
    else if ((byte >= 0x20 && byte != DEL) || byte == HT || (byte == BS && escapes_ == Escapes::keep_looks))
        put(static_cast<char>(byte));
}

void TextFilter::feed_escape(std::uint8_t byte) {
    switch (byte) {
    case '[':
        state_ = State::control_sequence;
        sequence_[sequence_size_++] = '[';
        break;
    case ']':
    case 'P':
    case 'X':
    case '^':
    case '_': state_ = State::control_string; break;
    default:
        if (byte < 0x20 || byte > 0x2f)  // an intermediate byte, or the final one
            state_ = State::text;
        break;
    }
}

void TextFilter::feed_control_sequence(std::uint8_t byte) {
    const bool final = byte >= 0x40;
    const bool fits = sequence_size_ < sequence_.size();
    if (byte >= 0x20 && byte < DEL && fits)
        sequence_[sequence_size_++] = static_cast<char>(byte);
    if (!final)
        return;
    state_ = State::text;
    // SGR and EL [ecma48 8.3.117 SGR - SELECT GRAPHIC RENDITION, 8.3.41 EL - ERASE IN LINE].
    if (escapes_ == Escapes::keep_looks && fits && (byte == 'm' || byte == 'K'))
        put_sequence();
}

/// The ranges are those of well-formed UTF-8 [unicode Table 3-7 Well-Formed UTF-8 Byte Sequences], without
/// U+0080 to U+009F.
void TextFilter::begin_utf8(std::uint8_t byte) {
    utf8_low_ = byte == 0xc2 || byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
    utf8_high_ = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
    utf8_left_ = byte < 0xc2 || byte > 0xf4 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    if (utf8_left_ == 0) {
        put('?');
        return;
    }
    sequence_size_ = 0;
    sequence_[sequence_size_++] = static_cast<char>(byte);
}

bool TextFilter::continue_utf8(std::uint8_t byte) {
    if (byte < utf8_low_ || byte > utf8_high_) {
        utf8_left_ = 0;
        put('?');
        return false;
    }
    utf8_low_ = 0x80;
    utf8_high_ = 0xbf;
    sequence_[sequence_size_++] = static_cast<char>(byte);
    if (--utf8_left_ == 0)
        put_sequence();
    return true;
}

}  // namespace hv
