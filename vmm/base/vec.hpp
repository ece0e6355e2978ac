// SPDX-License-Identifier: MIT
// A growable array whose growth can fail: std::vector without exceptions. Elements move when it grows.
#pragma once

#include "vmm/base/assert.hpp"
#include "vmm/base/expected.hpp"

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace hv {

/// `new T{args...}` in a unique_ptr, or Error::no_memory.
template <class T, class... Args>
Expected<std::unique_ptr<T>> make(Args&&... args) {
    auto* object = new (std::nothrow) T{std::forward<Args>(args)...};
    if (object == nullptr)
        return Unexpected{Error::no_memory};
    return std::unique_ptr<T>{object};
}

template <class T>
class Vec {
public:
    Vec() = default;
    Vec(Vec&& other) noexcept
        : data_{std::exchange(other.data_, nullptr)},
          size_{std::exchange(other.size_, 0)},
          capacity_{std::exchange(other.capacity_, 0)} {}
    Vec& operator=(Vec&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    Vec(const Vec&) = delete;
    Vec& operator=(const Vec&) = delete;
    ~Vec() {
        clear();
        ::operator delete(data_);
    }

    Expected<void> reserve(std::size_t capacity) {
        if (capacity <= capacity_)
            return {};
        auto* data = static_cast<T*>(::operator new(capacity * sizeof(T), std::nothrow));
        if (data == nullptr)
            return Unexpected{Error::no_memory};
        for (std::size_t i = 0; i < size_; ++i) {
            new (data + i) T{std::move(data_[i])};
            data_[i].~T();
        }
        ::operator delete(data_);
        data_ = data;
        capacity_ = capacity;
        return {};
    }
    /// Appends `value`; on Error::no_memory nothing has changed.
    Expected<void> push(T value) {
        if (size_ == capacity_)
            HV_TRY(reserve(capacity_ == 0 ? 4 : capacity_ * 2));
        new (data_ + size_) T{std::move(value)};
        ++size_;
        return {};
    }
    /// Makes the size `count`; new elements are value-initialised.
    Expected<void> resize(std::size_t count) {
        HV_TRY(reserve(count));
        while (size_ < count)
            new (data_ + size_++) T{};
        while (size_ > count)
            data_[--size_].~T();
        return {};
    }
    void clear() {
        while (size_ > 0)
            data_[--size_].~T();
    }
    void pop_back() {
        HV_ASSERT(size_ > 0);
        data_[--size_].~T();
    }

    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }
    T& operator[](std::size_t index) {
        HV_ASSERT(index < size_);
        return data_[index];
    }
    const T& operator[](std::size_t index) const {
        HV_ASSERT(index < size_);
        return data_[index];
    }
    T& back() { return (*this)[size_ - 1]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }
    [[nodiscard]] std::span<T> span() { return {data_, size_}; }
    [[nodiscard]] std::span<const T> span() const { return {data_, size_}; }

private:
    T* data_{nullptr};
    std::size_t size_{0};
    std::size_t capacity_{0};
};

}  // namespace hv
