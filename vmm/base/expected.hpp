// SPDX-License-Identifier: MIT
// A value or an Error: the C++20 subset of std::expected<T, Error> that this project uses, with its member
// names.
#pragma once

#include "vmm/base/assert.hpp"
#include "vmm/base/error.hpp"

#include <new>
#include <type_traits>
#include <utility>

namespace hv {

struct Unexpected {
    Error error;
    constexpr explicit Unexpected(Error e) : error{e} {}
};

template <class T>
class [[nodiscard]] Expected {
public:
    using value_type = T;

    // NOLINTNEXTLINE(google-explicit-constructor): `return value;` is the point of the type.
    constexpr Expected(const T& value) requires std::is_copy_constructible_v<T>
        : value_{value}, has_value_{true} {}
    constexpr Expected(T&& value) : value_{std::move(value)}, has_value_{true} {}
    constexpr Expected(Unexpected failure) : error_{failure.error}, has_value_{false} {}
    /// Converts from what a T can be made of, such as a unique_ptr to a derived class.
    template <class U>
    requires(!std::is_same_v<std::remove_cvref_t<U>, Expected> &&
             !std::is_same_v<std::remove_cvref_t<U>, T> &&
             !std::is_same_v<std::remove_cvref_t<U>, Unexpected> &&
             std::is_convertible_v<U, T>) constexpr Expected(U&& value)
        : value_{std::forward<U>(value)}, has_value_{true} {}

    constexpr Expected(Expected&& other) noexcept : has_value_{other.has_value_} {
        if (has_value_)
            new (&value_) T{std::move(other.value_)};
        else
            error_ = other.error_;
    }
    Expected(const Expected&) = delete;
    Expected& operator=(const Expected&) = delete;
    constexpr Expected& operator=(Expected&& other) noexcept {
        if (this != &other) {
            this->~Expected();
            new (this) Expected{std::move(other)};
        }
        return *this;
    }
    constexpr ~Expected() {
        if (has_value_)
            value_.~T();
    }

    [[nodiscard]] constexpr bool has_value() const { return has_value_; }
    constexpr explicit operator bool() const { return has_value_; }
    constexpr T& value() & { return checked(); }
    constexpr const T& value() const& { return const_cast<Expected*>(this)->checked(); }
    constexpr T&& value() && { return std::move(checked()); }
    constexpr T& operator*() & { return checked(); }
    constexpr const T& operator*() const& { return const_cast<Expected*>(this)->checked(); }
    constexpr T&& operator*() && { return std::move(checked()); }
    constexpr T* operator->() { return &checked(); }
    constexpr const T* operator->() const { return &const_cast<Expected*>(this)->checked(); }
    [[nodiscard]] constexpr Error error() const {
        HV_ASSERT(!has_value_);
        return error_;
    }
    template <class U>
    constexpr T value_or(U&& other) const& {
        return has_value_ ? value_ : static_cast<T>(std::forward<U>(other));
    }

private:
    constexpr T& checked() {
        HV_ASSERT(has_value_);
        return value_;
    }

    union {
        T value_;
        Error error_;
    };
    bool has_value_;
};

/// Of plain values: it is one itself, and so is returned in registers.
template <class T>
requires(std::is_trivially_copyable_v<T>&& std::is_trivially_default_constructible_v<T>)  //
    class [[nodiscard]] Expected<T> {
public:
    using value_type = T;

    // NOLINTNEXTLINE(google-explicit-constructor): `return value;` is the point of the type.
    constexpr Expected(const T& value) : value_{value}, has_value_{true} {}
    constexpr Expected(Unexpected failure) : error_{failure.error}, has_value_{false} {}
    /// Converts from what a T can be made of.
    template <class U>
    requires(!std::is_same_v<std::remove_cvref_t<U>, Expected> &&
             !std::is_same_v<std::remove_cvref_t<U>, T> &&
             !std::is_same_v<std::remove_cvref_t<U>, Unexpected> &&
             std::is_convertible_v<U, T>) constexpr Expected(U&& value)
        : value_{static_cast<T>(std::forward<U>(value))}, has_value_{true} {}

    [[nodiscard]] constexpr bool has_value() const { return has_value_; }
    constexpr explicit operator bool() const { return has_value_; }
    constexpr T& value() & { return checked(); }
    constexpr const T& value() const& { return checked(); }
    constexpr T value() && { return checked(); }
    constexpr T& operator*() & { return checked(); }
    constexpr const T& operator*() const& { return checked(); }
    constexpr T operator*() && { return checked(); }
    constexpr T* operator->() { return &checked(); }
    constexpr const T* operator->() const { return &checked(); }
    [[nodiscard]] constexpr Error error() const {
        HV_ASSERT(!has_value_);
        return error_;
    }
    template <class U>
    constexpr T value_or(U&& other) const {
        return has_value_ ? value_ : static_cast<T>(std::forward<U>(other));
    }

private:
    constexpr T& checked() {
        HV_ASSERT(has_value_);
        return value_;
    }
    constexpr const T& checked() const {
        HV_ASSERT(has_value_);
        return value_;
    }

    union {
        T value_;
        Error error_;
    };
    bool has_value_;
};

template <>
class [[nodiscard]] Expected<void> {
public:
    using value_type = void;

    constexpr Expected() = default;
    constexpr Expected(Unexpected failure) : error_{failure.error}, has_value_{false} {}
    [[nodiscard]] constexpr bool has_value() const { return has_value_; }
    constexpr explicit operator bool() const { return has_value_; }
    constexpr void value() const { HV_ASSERT(has_value_); }
    [[nodiscard]] constexpr Error error() const {
        HV_ASSERT(!has_value_);
        return error_;
    }

private:
    Error error_{};
    bool has_value_{true};
};

}  // namespace hv

/// Yields the value of an Expected, or returns its error from the calling function. May be nested.
#define HV_TRY(expression) HV_TRY_NAMED(expression, HV_TRY_JOIN(hv_try_result_, __COUNTER__))
#define HV_TRY_JOIN(a, b) HV_TRY_JOIN_EXPANDED(a, b)
#define HV_TRY_JOIN_EXPANDED(a, b) a##b
#define HV_TRY_NAMED(expression, result)                                                                     \
    __extension__({                                                                                          \
        auto result = (expression);                                                                          \
        if (!result) [[unlikely]]                                                                            \
            return ::hv::Unexpected{result.error()};                                                         \
        std::move(result).value();                                                                           \
    })
