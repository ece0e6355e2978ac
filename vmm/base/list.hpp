// SPDX-License-Identifier: MIT
// Intrusive doubly linked list: the links live in the elements, so that linking never allocates. An element
// is in at most one list per ListLink member.
#pragma once

#include "vmm/base/assert.hpp"

#include <cstddef>

namespace hv {

struct ListLink {
    ListLink* next{nullptr};
    ListLink* previous{nullptr};

    ListLink() = default;
    ListLink(const ListLink&) = delete;
    ListLink& operator=(const ListLink&) = delete;
    [[nodiscard]] bool linked() const { return next != nullptr; }
};

template <class T, ListLink T::*Link>
class List {
public:
    List() { head_.next = head_.previous = &head_; }
    List(const List&) = delete;
    List& operator=(const List&) = delete;

    [[nodiscard]] bool empty() const { return head_.next == &head_; }
    [[nodiscard]] T* front() { return empty() ? nullptr : owner(head_.next); }
    [[nodiscard]] T* back() { return empty() ? nullptr : owner(head_.previous); }
    void push_back(T& element) { insert(&head_, element); }
    void push_front(T& element) { insert(head_.next, element); }
    void insert_before(T& position, T& element) { insert(&(position.*Link), element); }
    /// `element` must be in this list.
    void remove(T& element) {
        ListLink& link = element.*Link;
        HV_ASSERT(link.linked());
        link.next->previous = link.previous;
        link.previous->next = link.next;
        link.next = link.previous = nullptr;
    }
    T* pop_front() {
        T* element = front();
        if (element != nullptr)
            remove(*element);
        return element;
    }

    class Iterator {
    public:
        explicit Iterator(ListLink* link) : link_{link} {}
        T& operator*() const { return *owner(link_); }
        Iterator& operator++() {
            link_ = link_->next;
            return *this;
        }
        bool operator!=(const Iterator& other) const { return link_ != other.link_; }

    private:
        ListLink* link_;
    };
    Iterator begin() { return Iterator{head_.next}; }
    Iterator end() { return Iterator{&head_}; }

private:
    static T* owner(ListLink* link) {
        // Offset of the member, computed without an object: GCC and Clang both fold this.
        const auto offset = reinterpret_cast<std::size_t>(&(static_cast<T*>(nullptr)->*Link));
        return reinterpret_cast<T*>(reinterpret_cast<std::byte*>(link) - offset);
    }
    void insert(ListLink* before, T& element) {
        ListLink& link = element.*Link;
        HV_ASSERT(!link.linked());
        link.next = before;
        link.previous = before->previous;
        before->previous->next = &link;
        before->previous = &link;
    }

    ListLink head_;
};

}  // namespace hv
