"""What a browser is told about a page of the server: what it may load and from where, and what it may do."""

from __future__ import annotations


def page_headers(styles: str = "'self'") -> dict[str, str]:
    """The headers of a page and its files, which ask no other server for anything. `styles` are the sources
    of style sheets in the words of the Content-Security-Policy."""
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src {styles}",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
