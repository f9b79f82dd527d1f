from stresslens.cli import main

main()
